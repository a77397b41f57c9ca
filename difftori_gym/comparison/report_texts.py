"""How the numbers of a report were made."""

READING_RL = (
    "Reinforcement learning. Each evaluation is the mean over {} episodes of a separate environment, from starts "
    "that depend on the seed of the run only, with the deterministic policy. Brackets are 95 % bootstrap intervals "
    "over seeds. Final return: the last evaluation. IQM: mean of the middle half. Area under curve: mean return "
    "over all frames of training. Success, pooled: over the episodes of all seeds, with Wilson's 95 % interval. "
    "Wall-clock and processor: seconds of training, without evaluations, checkpoints and films. Plan: median time "
    "of `predict` for one observation. Update: median time of a gradient update, means of ten; empty for on-policy "
    "methods. Both are measured after training, while the other runs go on, in processor time on a CPU. Frames are "
    "environment frames: agent steps times action repeat."
)
READING_IMITATION = (
    "Imitation. All methods learn from the same demonstrations and are evaluated from the same starts, which depend "
    "on the seed of the run only and are none of the demonstrations'. Policies act {}. Pooled: successes over the "
    "episodes of all seeds, with Wilson's 95 % interval, which does not know that networks of one seed share their "
    "weights. Mean over seeds: with the standard deviation between seeds. Return: brackets are 95 % bootstrap "
    "intervals over seeds. A base policy is trained once per seed, and its own line holds the time of its training. "
    "Wall-clock and processor: seconds of the gradient steps, without evaluations and checkpoints. Plan: median "
    "time of a new plan for one observation, of processor time on a CPU, what a base policy needs included; a plan "
    "serves as many steps as it has executed actions."
)
DIFFERENCES = (
    "Each pair is one task and seed, evaluated from the same starts after the same amount of training. Brackets are "
    "95 % bootstrap intervals over pairs."
)
RECORDS = (
    "Settings of each run and the command that repeats it: `runs/*/run.json`; versions, commit and machine: "
    "`runs/*/sessions.json`. Training logs: `runs/*/log-*/progress.csv`. All evaluations: `results.csv`."
)
