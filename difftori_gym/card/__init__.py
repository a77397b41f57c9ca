"""Model cards: what a model is, how well it does, a film of it, and how to load it. See docs/sharing.md."""

from difftori_gym.card.write import CardRequest, write_card

__all__ = ["CardRequest", "write_card"]
