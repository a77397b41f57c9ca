"""Limits and settings that hold for every test."""

import os

# Before torch is imported, for it and for processes that tests start: several single-threaded
# processes finish sooner than one that competes with them for the cores.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import torch
from hypothesis import settings

from difftori_gym.envs.rendering import select_gl_backend
from difftori_gym.wrappers import BatchedEnv, TensorStep

# Before MuJoCo is imported, which some suites do on their own.
select_gl_backend()
torch.set_num_threads(1)

# Examples are chosen from the test's own source, so that a failure repeats; a busy machine is no
# reason to fail.
settings.register_profile("difftori_gym", deadline=None, derandomize=True, max_examples=50)
settings.load_profile("difftori_gym")


class BatchOfEnvs(BatchedEnv):
    """Gymnasium environments, stepped one after the other, as a suite that steps in tensors shows them."""

    def __init__(self, envs, render_mode=None):
        self.envs = envs
        space = envs[0].observation_space
        super().__init__(len(envs), space, envs[0].action_space, device="cpu", render_mode=render_mode)
        self.shared = 1

    @staticmethod
    def stack(observations):
        if isinstance(observations[0], dict):
            return {key: BatchOfEnvs.stack([each[key] for each in observations]) for key in observations[0]}
        return torch.as_tensor(np.stack(observations))

    def reset(self, seeds):
        return self.stack([env.reset(seed=seed)[0] for env, seed in zip(self.envs, seeds, strict=True)])

    def step(self, actions):
        steps = [env.step(action) for env, action in zip(self.envs, actions.numpy(), strict=True)]
        final = [step[0] for step in steps]
        following = [
            env.reset()[0] if step[2] or step[3] else step[0] for env, step in zip(self.envs, steps, strict=True)
        ]
        success = torch.tensor([bool(step[4].get("is_success", False)) for step in steps])
        return TensorStep(
            observations=self.stack(following),
            rewards=torch.tensor([float(step[1]) for step in steps]),
            terminated=torch.tensor([bool(step[2]) for step in steps]),
            truncated=torch.tensor([bool(step[3]) for step in steps]),
            final_observations=self.stack(final),
            frames=torch.ones(len(steps), dtype=torch.int32),
            success=success if any("is_success" in step[4] for step in steps) else None,
        )

    def render(self):
        return [env.render() for env in self.envs]

    def close(self):
        for env in self.envs:
            env.close()

    def double(self, number):
        return 2 * number


@pytest.fixture
def batch_of_envs():
    return BatchOfEnvs
