"""
Many environments of MuJoCo Playground's control suite in one JAX program, seen from torch.

It imports JAX, which :func:`~difftori_gym.envs.playground.configure_jax` has to come before.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import torch
from gymnasium import spaces
from jax import numpy as jnp
from torch import Tensor

from difftori_gym.envs.mujoco_cameras import FREE_CAMERA, MujocoCameras, allow_pictures, explained_drawing
from difftori_gym.wrappers import BatchedEnv, TensorStep

# Bytes that the start of an array must be a multiple of for JAX to share its memory.
_ALIGNMENT = 64


class _Progress(NamedTuple):
    """What a step starts from, on JAX's device: random streams ``[N, 2]``, frames of the running episodes ``[N]``."""

    state: Any
    keys: Any
    frames: Any


class _Outcome(NamedTuple):
    """What a step gives before resets, as in :class:`~difftori_gym.wrappers.TensorStep`."""

    rewards: Any
    terminated: Any
    truncated: Any
    final_observations: Any
    frames: Any


class PlaygroundBatch(BatchedEnv):
    """
    ``N`` environments of one task of the control suite, on the device that JAX computes on.

    An action is repeated inside the compiled program, which stops counting where the episode ends. Tensors are
    exchanged by DLPack, which shares memory. Numbers that are not finite, after which Playground ends an episode, are
    given as zeros.

    :param source: Playground's environment
    :param num_envs: N, at least 1
    :param seed: of the random streams of environments that are reset without a seed; None for any
    :param action_repeat: environment frames per step, at least 1
    :param episode_length: environment frames after which an episode is truncated
    :param render_mode: None or ``rgb_array``
    :param width: of images, pixels, like ``height``
    :param camera_id: index or name of their camera
    :raises ValueError: for a number outside its range or an unknown camera
    """

    def __init__(
        self,
        source: Any,
        num_envs: int,
        *,
        seed: int | None = None,
        action_repeat: int = 1,
        episode_length: int | None = None,
        render_mode: str | None = None,
        width: int = 256,
        height: int = 256,
        camera_id: int | str = 0,
    ) -> None:
        if action_repeat < 1:
            raise ValueError(f"PlaygroundBatch needs action_repeat >= 1, got {action_repeat}.")
        self.episode_length = int(source._config.episode_length) if episode_length is None else episode_length
        if self.episode_length < 1:
            raise ValueError(f"PlaygroundBatch needs episode_length >= 1, got {self.episode_length}.")
        if camera_id != FREE_CAMERA:
            MujocoCameras(lambda: (source.mj_model, None)).index(camera_id)  # a wrong one is told now
        self.source = source
        self.action_repeat = action_repeat
        action_range = np.ones(source.action_size, dtype=np.float32)
        super().__init__(
            num_envs,
            spaces.Box(-np.inf, np.inf, (int(source.observation_size),), np.float32),
            spaces.Box(-action_range, action_range),
            device=_torch_device(jax.devices()[0]),
            render_mode=render_mode,
            render_fps=1.0 / (float(source.dt) * action_repeat),
        )
        self._image_size, self._camera = (height, width), camera_id
        self._drawing: Any = None
        self._progress: _Progress | None = None
        first = int(np.random.SeedSequence().generate_state(1)[0]) if seed is None else seed
        self._device = jax.devices()[0]
        self._keys = self._put(jax.random.split(jax.random.PRNGKey(first), num_envs))
        self._start = jax.jit(self._start_episodes)
        self._advance = jax.jit(self._advance_episodes)
        self._restart = jax.jit(self._restart_ended)

    # The compiled programs

    def _start_episodes(self, keys: Any) -> _Progress:
        """New episodes; the keys are used up, and their successors are part of what is returned."""
        split = jax.vmap(jax.random.split)(keys)  # [N, 2, 2]
        state = jax.vmap(self.source.reset)(split[:, 0])
        return _Progress(_plain(state), split[:, 1], jnp.zeros(self.num_envs, dtype=jnp.int32))

    def _advance_episodes(self, progress: _Progress, actions: Any) -> tuple[_Progress, _Outcome]:
        """One step of every environment, without resets."""

        def frame(carry: Any, _: None) -> tuple[Any, None]:
            # After the end of an episode the simulation runs on unseen, until the step is over.
            state, final, rewards, frames, terminated, ended = carry
            state = jax.vmap(self.source.step)(state, actions)
            final = _where(ended, final, jnp.nan_to_num(state.obs))
            rewards = rewards + jnp.where(ended, 0.0, jnp.nan_to_num(state.reward))
            frames = frames + ~ended
            terminated = terminated | (~ended & (state.done > 0))
            ended = terminated | (frames >= self.episode_length)
            return (_plain(state), final, rewards, frames, terminated, ended), None

        none = jnp.zeros(self.num_envs, dtype=bool)
        carry = (progress.state, progress.state.obs, jnp.zeros(self.num_envs), progress.frames, none, none)
        (state, final, rewards, frames, terminated, ended), _ = jax.lax.scan(frame, carry, None, self.action_repeat)
        after = _Progress(state, progress.keys, frames)
        outcome = _Outcome(rewards, terminated, ended & ~terminated, final, frames - progress.frames)
        return after, outcome

    def _restart_ended(self, ended: Any, fresh: _Progress, after: _Progress, final: Any) -> tuple[_Progress, Any]:
        """Fresh episodes where one ended; also the observations to act on."""
        joined = jax.tree.map(lambda new, old: _where(ended, new, old), fresh, after)
        return joined, _where(ended, fresh.state.obs, final)

    # What torch sees

    def _put(self, keys: Any) -> Any:
        """Bind an array to the device: what comes from torch is bound, and a mixture would be compiled twice."""
        return jax.device_put(keys, self._device)

    def reset(self, seeds: Sequence[int | None]) -> Tensor:
        if any(seed is not None for seed in seeds):
            chosen = np.array([0 if seed is None else seed for seed in seeds], dtype=np.uint32)
            given = np.array([seed is not None for seed in seeds])
            self._keys = self._put(_where(given, jax.vmap(jax.random.PRNGKey)(chosen), self._keys))
        self._progress = self._start(self._keys)
        self._keys = self._progress.keys
        return torch.from_dlpack(self._progress.state.obs)

    def step(self, actions: Tensor) -> TensorStep:
        assert self._progress is not None, "step before reset"
        after, outcome = self._advance(self._progress, _to_jax(actions))
        ended, observations = outcome.terminated | outcome.truncated, outcome.final_observations
        # The learner waits for these flags in any case, and programs without resets compile twice as fast.
        if bool(ended.any()):
            after, observations = self._restart(ended, self._start(self._keys), after, observations)
        self._progress, self._keys = after, after.keys
        tensors = {name: torch.from_dlpack(array) for name, array in outcome._asdict().items()}
        return TensorStep(torch.from_dlpack(observations), **tensors)

    def render(self) -> list[np.ndarray]:
        """Draw on the host with MuJoCo's own renderer; Playground's needs a package that is not published."""
        assert self._progress is not None, "render before reset"
        import mujoco

        model = self.source.mj_model
        if self._drawing is None:
            model.vis.quality.offsamples, model.vis.quality.shadowsize = 0, 0  # most of the time without a GPU
            height, width = self._image_size
            allow_pictures(model, height, width)
            with explained_drawing():
                self._drawing = mujoco.Renderer(model, height, width), mujoco.MjData(model)
        renderer, scene = self._drawing
        data = self._progress.state.data
        images = []
        for qpos, mocap_pos, mocap_quat in zip(
            np.asarray(data.qpos), np.asarray(data.mocap_pos), np.asarray(data.mocap_quat), strict=True
        ):
            scene.qpos, scene.mocap_pos, scene.mocap_quat = qpos, mocap_pos, mocap_quat
            mujoco.mj_forward(model, scene)
            renderer.update_scene(scene, camera=self._camera)
            images.append(renderer.render().copy())
        return images

    def close(self) -> None:
        if self._drawing is not None:
            self._drawing[0].close()
            self._drawing = None


def _where(condition: Any, chosen: Any, other: Any) -> Any:
    return jnp.where(condition.reshape((-1,) + (1,) * (chosen.ndim - 1)), chosen, other)


def _plain(tree: Any) -> Any:
    """Without JAX's weak types, which would make a second compilation of what takes them."""
    return jax.tree.map(lambda array: jax.lax.convert_element_type(array, array.dtype), tree)


def _to_jax(actions: Tensor) -> Any:
    """An array in the same memory."""
    actions = actions.detach().contiguous()
    if actions.data_ptr() % _ALIGNMENT:
        actions = actions.clone()  # numpy's memory may start anywhere
    return jax.dlpack.from_dlpack(actions)


def _torch_device(device: Any) -> torch.device:
    return torch.device("cuda", device.local_hardware_id) if device.platform == "gpu" else torch.device("cpu")
