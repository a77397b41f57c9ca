"""Networks: encoders, the latent model and its heads. Needs torch only."""

from difftori_gym.models.cvae import ChunkScore, GaussianPosterior, LatentScore
from difftori_gym.models.encoders import LatentEncoder
from difftori_gym.models.latent_model import LatentModel, latent_return, rollout_prior, termination_loss
from difftori_gym.models.latent_objective import LatentObjective
from difftori_gym.models.mlp import EnsembleCritic, mlp
from difftori_gym.models.score_objective import ChunkObjective, LatentScoreObjective
from difftori_gym.models.unet1d import ConditionalUnet1D

__all__ = [
    "ChunkObjective",
    "ChunkScore",
    "ConditionalUnet1D",
    "EnsembleCritic",
    "GaussianPosterior",
    "LatentEncoder",
    "LatentModel",
    "LatentObjective",
    "LatentScore",
    "LatentScoreObjective",
    "latent_return",
    "mlp",
    "rollout_prior",
    "termination_loss",
]
