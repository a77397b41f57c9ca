"""
What samples actions by a U-Net as ONNX operations, step by step: Diffusion Policy, flow matching, the minimal iterative
policy.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn

from difftori_gym.baselines.diffusion_policy import DiffusionNetwork
from difftori_gym.baselines.flow_matching import FlowNetwork
from difftori_gym.baselines.mip import MIPNetwork
from difftori_gym.baselines.unet_policy import TIME_SCALE, UnetNetwork
from difftori_gym.exports.onnx.graph import Graph, Value
from difftori_gym.exports.onnx.layers import network, numbers
from difftori_gym.models import ConditionalUnet1D


class _Sampler:
    """Calls of a U-Net with actions ``[1, A, T]``, and their beginning and end."""

    def __init__(self, graph: Graph, module: UnetNetwork, features: Value) -> None:
        self.graph, self.module = graph, module
        self.condition = graph.reshape(features, 1, -1)

    def start(self, noise: np.ndarray) -> Value:
        return self.graph.constant(noise.reshape(self.module.length, self.module.action_dim).T[None])

    def at(self, time: float, actions: Value) -> Value:
        """:param time: as the U-Net reads it"""
        with torch.no_grad():
            embedded = self.module.unet.embedding(torch.as_tensor([time], device=_device(self.module)))
        condition = self.graph.concat([numbers(embedded), self.condition], 1)
        return _unet(self.graph, self.module.unet, actions, condition)

    def end(self, actions: Value) -> Value:
        """``[H, A]``"""
        ordered = self.graph("Transpose", actions, perm=[0, 2, 1])
        rows = self.graph.reshape(ordered, self.module.length, self.module.action_dim)
        return self.graph.slice(rows, 0, self.module.horizon)


def denoised(graph: Graph, module: DiffusionNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """Actions ``[H, A]`` from features ``[n_obs_steps, F]``; see :func:`difftori_gym.exports.onnx.chunks.chunk`."""
    sampler = _Sampler(graph, module, features)
    actions = sampler.start(noise)
    scheduler: Any = module.sampling
    for step in scheduler.timesteps:
        actions = _ddim(graph, scheduler, int(step), actions, sampler.at(int(step), actions))
    return sampler.end(actions)


def flowed(graph: Graph, module: FlowNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """See :func:`denoised`."""
    sampler = _Sampler(graph, module, features)
    actions, steps = sampler.start(noise), module.num_inference_steps
    for step in range(steps):
        velocity = sampler.at(TIME_SCALE * (step / steps), actions)
        actions = graph("Add", actions, graph("Div", velocity, float(steps)))
    return sampler.end(actions)


def regressed(graph: Graph, module: MIPNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """See :func:`denoised`."""
    sampler = _Sampler(graph, module, features)
    first = sampler.at(0.0, sampler.start(np.zeros(module.length * module.action_dim, np.float32)))
    return sampler.end(sampler.at(TIME_SCALE * module.t_star, graph("Mul", first, module.t_star)))


def _device(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def _ddim(graph: Graph, scheduler: Any, step: int, actions: Value, found: Value) -> Value:
    """One step towards clean actions, without noise (Song et al. 2021, arXiv 2010.02502, equation 12)."""
    before = step - scheduler.config.num_train_timesteps // scheduler.num_inference_steps
    kept = float(scheduler.alphas_cumprod[step])
    kept_before = float(scheduler.alphas_cumprod[before] if before >= 0 else scheduler.final_alpha_cumprod)
    signal, noise = kept**0.5, (1.0 - kept) ** 0.5
    if scheduler.config.prediction_type == "epsilon":
        clean = graph("Div", graph("Sub", actions, graph("Mul", found, noise)), signal)
        error = found
    else:
        clean = found
        error = graph("Div", graph("Sub", actions, graph("Mul", found, signal)), noise)
    limit = float(scheduler.config.clip_sample_range)
    clean = graph("Clip", clean, -limit, limit)
    return graph("Add", graph("Mul", clean, kept_before**0.5), graph("Mul", error, (1.0 - kept_before) ** 0.5))


def _unet(graph: Graph, unet: ConditionalUnet1D, x: Value, condition: Value) -> Value:
    """``[1, A, T]`` -> ``[1, A, T]``"""
    skipped = []
    for index, blocks in enumerate(unet.down):
        x = _blocks(graph, blocks, x, condition)
        skipped.append(x)
        if index < len(unet.shrink):
            x = _convolution(graph, unet.shrink[index], x)
    x = _blocks(graph, unet.middle, x, condition)
    for blocks, grow in zip(unet.up, unet.grow, strict=True):
        x = _convolution(graph, grow, _blocks(graph, blocks, graph.concat([x, skipped.pop()], 1), condition))
    first, last = unet.final
    return _convolution(graph, last, _normed(graph, first, x))


def _blocks(graph: Graph, blocks: Any, x: Value, condition: Value) -> Value:
    for block in blocks:
        channels = block.film[1].out_features // 2
        film, _ = network(graph, block.film, condition, "the U-Net")
        scale, shift = graph.split(graph.reshape(film, 1, 2 * channels, 1), [channels, channels], axis=1)
        hidden = graph("Add", graph("Mul", scale, _normed(graph, block.first, x)), shift)
        shortcut = x if isinstance(block.shortcut, nn.Identity) else _convolution(graph, block.shortcut, x)
        x = graph("Add", _normed(graph, block.second, hidden), shortcut)
    return x


def _normed(graph: Graph, layers: Any, x: Value) -> Value:
    """A convolution, its channels normalised by groups, Mish."""
    convolution, norm, _ = layers
    groups = norm.num_groups
    apart = graph.reshape(_convolution(graph, convolution, x), 1, groups, -1)
    ones, zeros = np.ones(groups, np.float32), np.zeros(groups, np.float32)
    normed = graph("InstanceNormalization", apart, ones, zeros, epsilon=norm.eps)
    normed = graph.reshape(normed, 1, norm.num_channels, -1)
    weight, bias = (numbers(each)[:, None] for each in (norm.weight, norm.bias))
    return graph("Mish", graph("Add", graph("Mul", normed, weight), bias))


def _convolution(graph: Graph, module: Any, x: Value) -> Value:
    operation = "ConvTranspose" if isinstance(module, nn.ConvTranspose1d) else "Conv"
    places = dict(strides=list(module.stride), pads=[*module.padding, *module.padding])
    return graph(operation, x, numbers(module.weight), numbers(module.bias), **places)
