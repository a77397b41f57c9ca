"""
Two systems whose equations are known, and what to plan with them: a cart-pole, and the pendulum of Amos et al. 2018.

A dynamics maps a state ``[B, S]`` and an action ``[B, 1]`` in [-1, 1] to the next state; a cost maps the same two to
``[B]``. :class:`PlannedCost` makes the objective of a ``TrajectoryOptimizer`` from them. Every physical parameter is a
tensor, so that whatever solves the objective can be differentiated in it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""State ``[B, S]``, action ``[B, 1]`` in [-1, 1] -> next state ``[B, S]``."""

StageCost = Callable[[Tensor, Tensor], Tensor]
"""State ``[B, S]``, action ``[B, 1]`` in [-1, 1] -> cost ``[B]``."""

TIME_STEP = 0.05
"""Seconds per action, of both systems."""
GREATEST_FORCE = 10.0
"""Newton, at an action of 1."""
GREATEST_TORQUE = 2.0
"""Newton metre, at an action of 1."""


@dataclass(frozen=True)
class PlannedCost:
    """
    The negative cost of an open-loop plan: the objective of a ``TrajectoryOptimizer``.

    sum_{t<H} cost(s_t, a_t) with s_{t+1} = dynamics(s_t, a_t)

    :param dynamics: of the system, or a model of it
    :param cost: per step
    :param start: states at the beginning of the plan ``[B, S]``
    """

    dynamics: Dynamics
    cost: StageCost
    start: Tensor

    def __call__(self, actions: Tensor) -> Tensor:
        """
        :param actions: plans ``[B, H, 1]``
        :return: negative costs ``[B]``, differentiable in the actions and in all that dynamics and cost captured
        """
        state, total = self.start, torch.zeros_like(actions[:, 0, 0])
        for action in actions.unbind(dim=1):
            total = total + self.cost(state, action)
            state = self.dynamics(state, action)
        return -total

    def repeat(self, n: int) -> PlannedCost:
        """
        :param n: number of copies of the batch
        :return: the same objective for all copies, so that several starts are solved as one batch
        """
        return replace(self, start=self.start.repeat(n, 1))


def rollout(dynamics: Dynamics, start: Tensor, actions: Tensor) -> Tensor:
    """
    :param dynamics: of the system
    :param start: states ``[B, S]``
    :param actions: plans ``[B, H, 1]``
    :return: states ``[B, H + 1, S]``, the first is ``start``
    """
    states = [start]
    for action in actions.unbind(dim=1):
        states.append(dynamics(states[-1], action))
    return torch.stack(states, dim=1)


class CartPole(NamedTuple):
    """
    A pole that swings freely on a cart, pushed by a force along its rail; the state is (x, theta, dx, dtheta) ``[B, 4]``
    in metres, radians and seconds, theta 0 upright.

    Source: Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction.

    :param cart_mass: kg
    :param pole_mass: kg
    :param half_length: m, from the hinge to the pole's centre
    """

    cart_mass: Tensor
    pole_mass: Tensor
    half_length: Tensor

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 4]``
        :param action: share of ``GREATEST_FORCE`` ``[B, 1]``
        :return: state after ``TIME_STEP`` ``[B, 4]``, by a semi-implicit Euler step
        """
        x, theta, dx, dtheta = state.unbind(dim=1)
        sine, cosine = theta.sin(), theta.cos()
        total = self.cart_mass + self.pole_mass
        pole = self.pole_mass * self.half_length
        push = (GREATEST_FORCE * action[:, 0] + pole * dtheta.square() * sine) / total
        turn = (9.81 * sine - cosine * push) / (
            self.half_length * (4.0 / 3.0 - self.pole_mass * cosine.square() / total)
        )
        dx = dx + TIME_STEP * (push - pole * turn * cosine / total)
        dtheta = dtheta + TIME_STEP * turn
        return torch.stack((x + TIME_STEP * dx, theta + TIME_STEP * dtheta, dx, dtheta), dim=1)


class CartPoleCost(NamedTuple):
    """
    Weights of a cost that is least with the pole upright and at rest in the middle of the rail.

    :param position: of x^2
    :param angle: of 1 - cos(theta)
    :param velocity: of dx^2
    :param rotation: of dtheta^2
    :param effort: of the squared action
    """

    position: Tensor
    angle: Tensor
    velocity: Tensor
    rotation: Tensor
    effort: Tensor

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 4]``
        :param action: ``[B, 1]``
        :return: costs ``[B]``, at least 0
        """
        x, theta, dx, dtheta = state.unbind(dim=1)
        return (
            self.position * x.square()
            + self.angle * (1.0 - theta.cos())
            + self.velocity * dx.square()
            + self.rotation * dtheta.square()
            + self.effort * action[:, 0].square()
        )


TRUE_CART_POLE = CartPole(*torch.tensor([1.0, 0.1, 0.5], dtype=torch.float64))
TRUE_CART_POLE_COST = CartPoleCost(*torch.tensor([0.5, 2.0, 0.05, 0.05, 0.1], dtype=torch.float64))


class Pendulum(NamedTuple):
    """
    The pendulum of Amos et al. 2018 (arXiv 1810.13400); the state is (theta, dtheta) ``[B, 2]``, theta 0 upright.

    Their environment with damping adds two terms, as released: what is called damping pulls at the angle and not at its
    velocity, and gravity is turned by an angle, which the paper calls wind.

    Source: ``mpc.pytorch``, ``env_dx/pendulum.py``.

    :param gravity: m/s^2
    :param mass: kg
    :param length: m
    :param damping: 1/s^2
    :param wind: radians
    """

    gravity: Tensor
    mass: Tensor
    length: Tensor
    damping: Tensor | None = None
    wind: Tensor | None = None

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 2]``
        :param action: share of ``GREATEST_TORQUE`` ``[B, 1]``
        :return: state after ``TIME_STEP`` ``[B, 2]``, by a semi-implicit Euler step
        """
        theta, dtheta = state.unbind(dim=1)
        torque = 3.0 * GREATEST_TORQUE * action[:, 0] / (self.mass * self.length.square())
        turned = theta if self.wind is None else theta + self.wind
        turn = 1.5 * self.gravity / self.length * turned.sin() + torque
        if self.damping is not None:
            turn = turn - self.damping * wrap(theta)
        dtheta = dtheta + TIME_STEP * turn
        return torch.stack((theta + TIME_STEP * dtheta, dtheta), dim=1)


def pendulum_cost(state: Tensor, action: Tensor) -> Tensor:
    """
    Cost of Amos et al. 2018, as released: tau . diag(q) tau / 2 + p . tau with tau = (cos, sin, dtheta, torque),
    q = (1, 1, 0.1, 0.001), p = (-1, 0, 0, 0). At rest upright it is -0.5.

    :param state: ``[B, 2]``
    :param action: ``[B, 1]``
    :return: costs ``[B]``
    """
    theta, dtheta = state.unbind(dim=1)
    torque = GREATEST_TORQUE * action[:, 0]
    return 0.5 - theta.cos() + 0.05 * dtheta.square() + 0.0005 * torque.square()


def wrap(angle: Tensor) -> Tensor:
    """
    :param angle: radians
    :return: the same direction in [-pi, pi], with the derivative of the angle
    """
    return angle - 2.0 * math.pi * torch.round(angle / (2.0 * math.pi)).detach()
