"""
Is the objective that imitation learns a reward? Four questions, of which docs/objective_or_reward.md has the answers.

    python scripts/objective_or_reward.py --questions correlation transfer ranking reward

correlation: pendulum and cart-pole, does it order plans as the true cost does; transfer: the same systems, a mass is
changed, and it is planned with there; ranking: MetaWorld, does it rank an expert's actions above perturbed ones;
reward: MetaWorld, reinforcement with it and with a discriminator's reward. What is measured is in the csv files and is
not measured again; figures are drawn from these. One core is enough.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from reward_questions import drawing, known, metaworld, reinforcement
from reward_questions.objectives import LearningSettings
from reward_questions.systems import SYSTEMS

ROOT = Path(__file__).resolve().parents[1]
DATA = ROOT / "docs" / "data"
QUESTIONS = ("correlation", "transfer", "ranking", "reward")


def main(arguments: list[str] | None = None) -> None:
    """
    Measure what is not measured yet, and draw.

    :param arguments: command line without the program, None: the process's own
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--questions", nargs="*", choices=QUESTIONS, default=list(QUESTIONS), help="default: all; none: draw only")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], help="of the first three questions, default: 0 1 2")
    add("--systems", nargs="+", choices=list(SYSTEMS), default=list(SYSTEMS), help="of the first two, default: both")
    add("--learners", nargs="+", choices=known.LEARNERS, default=list(known.LEARNERS), help="likewise, default: all")
    add("--tasks", nargs="+", default=list(metaworld.RankingSettings.tasks), help="of ranking")
    add("--reward-seeds", nargs="+", type=int, default=[0], help="of reinforcement, default: 0")
    add("--rewards", nargs="+", choices=reinforcement.REWARDS, default=list(reinforcement.REWARDS))
    add("--frames", type=int, default=20_000, help="of reinforcement, default: 20000")
    add("--data", type=Path, default=DATA, help="folder of the csv files")
    add("--figures", type=Path, default=ROOT / "docs" / "figures", help="folder of the figures")
    add("--demos", type=Path, default=ROOT / "results" / "reward_demos", help="folder of demonstrations")
    add("--quick", action="store_true", help="tiny sizes, to see that it works; the numbers mean nothing")
    args = parser.parse_args(arguments)
    if args.quick and args.data.resolve() == DATA:
        parser.error(f"--quick measures nothing: expected --data of its own, got {DATA}.")
    torch.set_num_threads(1)
    seeds, quick = tuple(args.seeds), args.quick
    learned = known.KnownSettings(tuple(args.systems), tuple(args.learners), seeds)
    ranking = metaworld.RankingSettings(tuple(args.tasks), seeds)
    reward = reinforcement.ReinforcementSettings(
        seeds=tuple(args.reward_seeds), frames=args.frames, rewards=tuple(args.rewards)
    )
    if quick:
        few = LearningSettings(steps=2, reward_steps=2, evaluations=3, identify_on=4)
        learned = replace(learned, starts=2, steps=8, tested=1, plans=8, factors=(1.0, 0.5), learning=few)
        ranking = metaworld.RankingSettings(("metaworld/drawer-open",), seeds, demos=1, held_out=1, steps=2)
        reward = reinforcement.ReinforcementSettings(
            rewards=("objective", "discriminator"), frames=60, eval_freq=60, episodes=1, demos=1, steps=2
        )
    asked = set(args.questions)
    if asked & {"correlation", "transfer"}:
        known.run(
            known.correlation_table(args.data) if "correlation" in asked else None,
            known.transfer_table(args.data) if "transfer" in asked else None,
            learned,
        )
    if "ranking" in asked:
        metaworld.run(metaworld.table(args.data), ranking, args.demos)
    if "reward" in asked:
        reinforcement.run(reinforcement.table(args.data), reward, args.demos)
    drawing.draw(args.data, args.figures)


if __name__ == "__main__":
    main()
