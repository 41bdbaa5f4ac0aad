"""Solvers of the probability-flow ODE: Euler, Heun, Midpoint, RK4 on a uniform grid, and adaptive Dormand-Prince."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.interpolants import Interpolant
from flowexp.solvers.base import Draw, OnStep, Solver, ignore, linspace, rows_of
from flowexp.velocity import Field


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method on a uniform grid: num_steps steps, num_steps network calls."""

    name: ClassVar[str] = "euler"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = _grid(interpolant, t_end, self.num_steps)
        for t, (level, after) in zip(rows_of(levels, x), pairwise(levels), strict=False):
            x = torch.add(x, field(x, t), alpha=after - level)
            on_step(after, x)
        return x


@dataclass(frozen=True)
class Heun(Solver):
    """Heun's method (trapezoidal corrector), the last step Euler: num_steps steps, 2 num_steps - 1 network calls.

    The last step takes no velocity at t = 0, as in EDM (Karras et al. 2022, Algorithm 1) and REPA's code.
    """

    name: ClassVar[str] = "heun"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = _grid(interpolant, t_end, self.num_steps)
        rows = rows_of(levels, x)
        for step, (level, after) in enumerate(pairwise(levels)):
            velocity = field(x, rows[step])
            predicted = torch.add(x, velocity, alpha=after - level)
            if step + 1 < self.num_steps:
                corrector = velocity + field(predicted, rows[step + 1])
                predicted = torch.add(x, corrector, alpha=(after - level) / 2)
            x = predicted
            on_step(after, x)
        return x


@dataclass(frozen=True)
class Midpoint(Solver):
    """The explicit midpoint method, second order: num_steps steps, 2 num_steps network calls, none at t = 0."""

    name: ClassVar[str] = "midpoint"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = _grid(interpolant, t_end, self.num_steps)
        rows, middles = rows_of(levels, x), rows_of(_middles(levels), x)
        for step, (level, after) in enumerate(pairwise(levels)):
            halfway = torch.add(x, field(x, rows[step]), alpha=(after - level) / 2)
            x = torch.add(x, field(halfway, middles[step]), alpha=after - level)
            on_step(after, x)
        return x


@dataclass(frozen=True)
class RK4(Solver):
    """The classical Runge-Kutta method, fourth order: num_steps steps, 4 num_steps network calls, the last at t_end."""

    name: ClassVar[str] = "rk4"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = _grid(interpolant, t_end, self.num_steps)
        rows, middles = rows_of(levels, x), rows_of(_middles(levels), x)
        for step, (level, after) in enumerate(pairwise(levels)):
            size = after - level
            first = field(x, rows[step])
            second = field(torch.add(x, first, alpha=size / 2), middles[step])
            third = field(torch.add(x, second, alpha=size / 2), middles[step])
            fourth = field(torch.add(x, third, alpha=size), rows[step + 1])
            x = torch.add(x, first + 2 * (second + third) + fourth, alpha=size / 6)
            on_step(after, x)
        return x


@dataclass(frozen=True)
class Dopri5(Solver):
    """Dormand-Prince 5(4) with adaptive steps, from torchdiffeq; SiT's default ODE solver and tolerances.

    It takes as many network calls as the tolerances ask, for the batch as a whole: within them a sample depends on its
    batch. num_steps does not steer it: it is the number of equidistant states that `on_step` sees, after the solve.
    """

    atol: float = 1e-6
    rtol: float = 1e-3

    name: ClassVar[str] = "dopri5"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        from torchdiffeq import odeint

        levels = _grid(interpolant, t_end, 1 if on_step is ignore else self.num_steps)
        grid = torch.tensor(levels, dtype=torch.float64, device=x.device)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return field(x, t.clamp(levels[-1], levels[0]).to(x.dtype).expand(len(x)))

        # Left alone it steps past the end and interpolates back, and its first guess of a step may lie anywhere: the
        # network would be asked for noise levels that do not exist.
        options = {"step_t": grid[-1:]}
        states = odeint(velocity, x, grid, atol=self.atol, rtol=self.rtol, method="dopri5", options=options)
        for after, state in zip(levels[1:], states[1:], strict=True):
            on_step(after, state)
        return states[-1]


def _grid(interpolant: Interpolant, t_end: float, num_steps: int) -> list[float]:
    low, high = interpolant.ode_interval
    return linspace(high, max(low, t_end), num_steps + 1)


def _middles(levels: list[float]) -> list[float]:
    return [(level + after) / 2 for level, after in pairwise(levels)]
