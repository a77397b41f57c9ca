"""Diffusion Policy, flow matching and MIP as ONNX operations: calls of their U-Net, one after the other."""

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


def denoised(graph: Graph, module: DiffusionNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """Actions ``[H, A]`` from features ``[n_obs_steps, F]``; see :func:`difftori_gym.exports.onnx.chunks.chunk`."""
    actions = _noisy(graph, module, noise)
    scheduler: Any = module.sampling
    for step in scheduler.timesteps:
        found = _answer(graph, module, int(step), actions, features)
        actions = _ddim(graph, scheduler, int(step), actions, found)
    return _planned(graph, module, actions)


def carried(graph: Graph, module: FlowNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """The same along the velocity."""
    actions, count = _noisy(graph, module, noise), module.num_inference_steps
    for step in range(count):
        velocity = _answer(graph, module, TIME_SCALE * step / count, actions, features)
        actions = graph("Add", actions, graph("Div", velocity, float(count)))
    return _planned(graph, module, actions)


def regressed(graph: Graph, module: MIPNetwork, features: Value, noise: np.ndarray, start: Value | None) -> Value:
    """The same from nothing, in two steps."""
    nothing = graph.constant(np.zeros((1, module.action_dim, module.length), np.float32))
    first = graph("Mul", _answer(graph, module, 0.0, nothing, features), module.t_star)
    return _planned(graph, module, _answer(graph, module, TIME_SCALE * module.t_star, first, features))


def _noisy(graph: Graph, module: UnetNetwork, noise: np.ndarray) -> Value:
    return graph.constant(noise.reshape(module.length, module.action_dim).T[None])  # [1, A, T]


def _answer(graph: Graph, module: UnetNetwork, step: float, actions: Value, features: Value) -> Value:
    """The U-Net's answer ``[1, A, T]``."""
    with torch.no_grad():
        embedded = module.unet.embedding(torch.tensor([step], device=next(module.parameters()).device))
    condition = graph.concat([numbers(embedded), graph.reshape(features, 1, -1)], 1)
    return _unet(graph, module.unet, actions, condition)


def _planned(graph: Graph, module: UnetNetwork, actions: Value) -> Value:
    ordered = graph("Transpose", actions, perm=[0, 2, 1])
    return graph.slice(graph.reshape(ordered, module.length, module.action_dim), 0, module.horizon)


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
