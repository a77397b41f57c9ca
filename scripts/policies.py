"""
Trained policies for examples/policies, from runs of examples/compare.py.

    python scripts/policies.py results/evidence/cells/fifteen/difftori-cheetah-run-seed0/runs/* ...

Of each run, whose folder is unpickled: the newest model, exported without what only training reads, a card with its
return over ten episodes of unseen starts, and a line of policies.json, which examples/record_video.py reads.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from difftori_gym import make_vec_env
from difftori_gym.card.text import Run as Evaluated
from difftori_gym.card.text import card_text
from difftori_gym.card.trained import Subject, find_trained
from difftori_gym.comparison.run_record import Run
from difftori_gym.evaluation import evaluate
from difftori_gym.exports import export, load_export, read_export

ROOT = Path(__file__).resolve().parents[1]
#: Neither training nor the evaluations of compare.py begin at these seeds.
FIRST_SEED = 7_000_000


def write_policy(run: Path, out: Path, episodes: int) -> tuple[str, dict[str, Any]]:
    """
    :param run: folder of a run of reinforcement learning
    :param out: folder of the policies
    :param episodes: of its evaluation
    :return: name of the policy, and what the table says of it
    """
    trained = find_trained(run)
    if trained.learner is None or trained.env is None:
        raise ValueError(f"expected the folder of a run of examples/compare.py, got {run}.")
    model = trained.learner.load(trained.path, device="cpu")
    name = trained.env.partition("/")[2]
    path = export(model, out / name, acting_only=True)
    policy = load_export(path, device="cpu")
    environment = {key: value for key, value in trained.environment.items() if value not in (None, {})}
    env = make_vec_env(trained.env, 1, **environment)
    evaluation = evaluate(policy, env, n_episodes=episodes, seed=FIRST_SEED)
    env.close()
    made = Evaluated(trained.env, environment, FIRST_SEED, evaluation)
    text = card_text(Subject(policy, read_export(path)), made, {}, f"python scripts/policies.py {run}")
    commit = json.loads((run / "sessions.json").read_text(encoding="utf-8"))["sessions"][-1]["commit"]
    text += f"\nTrained at commit {commit} by\n\n    {Run.read(run / 'run.json').command()}\n"
    (out / f"{name}.md").write_text(text, encoding="utf-8")
    mean, std = float(evaluation.mean_return), float(evaluation.returns.std())
    about = dict(env=trained.env, action_repeat=environment["action_repeat"], agent_steps=model.num_timesteps)
    return name, dict(about, episodes=episodes, mean_return=round(mean, 2), std_return=round(std, 2))


def main(arguments: list[str]) -> int:
    """:return: exit code"""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, which are unpickled: only your own")
    parser.add_argument("--out", type=Path, default=ROOT / "examples" / "policies")
    parser.add_argument("--episodes", type=int, default=10)
    values = parser.parse_args(arguments)
    values.out.mkdir(parents=True, exist_ok=True)
    table_path = values.out / "policies.json"
    table = json.loads(table_path.read_text(encoding="utf-8")) if table_path.exists() else {}
    for run in values.runs:
        name, about = write_policy(run, values.out, values.episodes)
        table[name] = about
        table_path.write_text(json.dumps(dict(sorted(table.items())), indent=1) + "\n", encoding="utf-8")
        print(f"{name}: {about['mean_return']} +/- {about['std_return']}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
