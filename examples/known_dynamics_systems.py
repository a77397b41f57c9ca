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

import torch
from torch import Tensor

Dynamics = Callable[[Tensor, Tensor], Tensor]
"""State ``[B, S]``, action ``[B, 1]`` in [-1, 1] -> next state ``[B, S]``."""

StageCost = Callable[[Tensor, Tensor], Tensor]
"""State ``[B, S]``, action ``[B, 1]`` in [-1, 1] -> cost ``[B]``."""

GRAVITY = 9.81
"""m/s^2, of the cart-pole."""
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
        states = rollout(self.dynamics, self.start, actions[:, :-1])
        costs = self.cost(
            states.flatten(0, 1), actions.flatten(0, 1)
        )  # one call for all steps: a plan is many small ones
        return -costs.view(actions.shape[:2]).sum(dim=1)

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


class CartPole:
    """
    A pole that swings freely on a cart, which a force pushes along its rail.

    The state is (x, theta, dx, dtheta) ``[B, 4]`` in metres, radians and seconds, theta 0 upright.

    Source: Florian 2007, "Correct equations for the dynamics of the cart-pole system", without friction.

    :param parameters: mass of the cart in kg, mass of the pole in kg, and half the pole's length in m, tensor ``[3]``
    """

    NAMES = ("cart mass", "pole mass", "half length")
    TRUE = (1.0, 0.1, 0.5)

    def __init__(self, parameters: Tensor) -> None:
        cart_mass, pole_mass, half_length = parameters
        total = cart_mass + pole_mass
        self._force = GREATEST_FORCE / total
        self._pole = pole_mass * half_length / total
        self._inertia = 4.0 / 3.0 * half_length

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 4]``
        :param action: share of ``GREATEST_FORCE`` ``[B, 1]``
        :return: state after ``TIME_STEP`` ``[B, 4]``, by a semi-implicit Euler step
        """
        position, velocity = state[:, :2], state[:, 2:]
        sine, cosine = position[:, 1].sin(), position[:, 1].cos()
        push = self._force * action[:, 0] + self._pole * velocity[:, 1].square() * sine
        turn = (GRAVITY * sine - cosine * push) / (self._inertia - self._pole * cosine.square())
        velocity = velocity + TIME_STEP * torch.stack((push - self._pole * turn * cosine, turn), dim=1)
        return torch.cat((position + TIME_STEP * velocity, velocity), dim=1)


class CartPoleCost:
    """
    A cost that is least with the pole upright and at rest in the middle of the rail.

    :param weights: of x^2, 1 - cos(theta), dx^2 and dtheta^2, in units of that of the squared action, tensor ``[4]``:
        a common factor changes no plan and cannot be learned from one
    """

    NAMES = ("position", "angle", "velocity", "rotation")
    TRUE = (5.0, 20.0, 0.5, 0.5)

    def __init__(self, weights: Tensor) -> None:
        self._weights = weights

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 4]``
        :param action: ``[B, 1]``
        :return: costs ``[B]``, at least 0
        """
        x, theta, dx, dtheta = state.unbind(dim=1)
        terms = torch.stack((x.square(), 1.0 - theta.cos(), dx.square(), dtheta.square()), dim=1)
        return terms @ self._weights + action[:, 0].square()


class Pendulum:
    """
    The pendulum of Amos et al. 2018 (arXiv 1810.13400); the state is (theta, dtheta) ``[B, 2]``, theta 0 upright.

    Their environment with damping adds two terms. As released, what is called damping pulls at the angle and not at its
    velocity; the other turns gravity by an angle, which the paper calls wind.

    Source: ``mpc.pytorch``, ``env_dx/pendulum.py``.

    :param parameters: gravity over length in 1/s^2 and mass times squared length in kg m^2, all that can be learned of
        the three; then, or not, damping in 1/s^2 and the angle of the wind in radians; tensor ``[2]`` or ``[4]``
    """

    NAMES = ("gravity / length", "mass length^2", "damping", "wind")
    UNDAMPED = (10.0, 1.0)
    DAMPED = (10.0, 1.0, 1.0, 0.1)

    def __init__(self, parameters: Tensor) -> None:
        self._pull, self._torque = 1.5 * parameters[0], 3.0 * GREATEST_TORQUE / parameters[1]
        self._extra = tuple(parameters[2:])

    def __call__(self, state: Tensor, action: Tensor) -> Tensor:
        """
        :param state: ``[B, 2]``
        :param action: share of ``GREATEST_TORQUE`` ``[B, 1]``
        :return: state after ``TIME_STEP`` ``[B, 2]``, by a semi-implicit Euler step
        """
        theta, dtheta = state[:, 0], state[:, 1]
        turn = self._torque * action[:, 0]
        if self._extra:
            damping, wind = self._extra
            turn = turn + self._pull * (theta + wind).sin() - damping * wrap(theta)
        else:
            turn = turn + self._pull * theta.sin()
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
