"""Solvers of the probability-flow ODE: Euler, Heun, Midpoint, RK4 on a grid, and adaptive Dormand-Prince."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.solvers.base import Draw, OnStep, Solver, ignore, levels_between, rows_of
from flowexp.flow.velocity import Field


@dataclass(frozen=True)
class ODEStep:
    """One step of a grid: where it starts, its middle and its end as noise levels (B,), and its size, below 0."""

    t: Tensor
    t_middle: Tensor
    t_after: Tensor
    size: float
    is_last: bool


@dataclass(frozen=True)
class ODESolver(Solver):
    """A solver of the probability-flow ODE."""

    def grid(self, interpolant: Interpolant, t_end: float, num_steps: int) -> list[float]:
        """The levels of `num_steps` steps, from the noise end of the path's interval."""
        low, high = interpolant.ode_interval
        return levels_between(high, max(low, t_end), num_steps + 1, self.shift)


@dataclass(frozen=True)
class RungeKutta(ODESolver):
    """An explicit Runge-Kutta method on a grid of num_steps steps, uniform without a shift."""

    @abstractmethod
    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        """The state (B, ...) after one step."""

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = self.grid(interpolant, t_end, self.num_steps)
        middles = rows_of([(level + after) / 2 for level, after in pairwise(levels)], x)
        rows = pairwise(rows_of(levels, x))
        for (level, after), (t, t_after), t_middle in zip(pairwise(levels), rows, middles, strict=True):
            x = self.advance(field, x, ODEStep(t, t_middle, t_after, after - level, is_last=after == levels[-1]))
            on_step(after, x)
        return x


@dataclass(frozen=True)
class Euler(RungeKutta):
    """Euler's method: num_steps network calls."""

    name: ClassVar[str] = "euler"

    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        return torch.add(x, field(x, step.t), alpha=step.size)


@dataclass(frozen=True)
class Heun(RungeKutta):
    """Heun's method (trapezoidal corrector), the last step Euler: 2 num_steps - 1 network calls.

    The last step takes no velocity at t = 0, as in EDM (Karras et al. 2022, Algorithm 1) and REPA's code.
    """

    name: ClassVar[str] = "heun"

    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        velocity = field(x, step.t)
        predicted = torch.add(x, velocity, alpha=step.size)
        if step.is_last:
            return predicted
        return torch.add(x, velocity + field(predicted, step.t_after), alpha=step.size / 2)


@dataclass(frozen=True)
class Midpoint(RungeKutta):
    """The explicit midpoint method, second order: 2 num_steps network calls, none at t = 0."""

    name: ClassVar[str] = "midpoint"

    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        halfway = torch.add(x, field(x, step.t), alpha=step.size / 2)
        return torch.add(x, field(halfway, step.t_middle), alpha=step.size)


@dataclass(frozen=True)
class RK4(RungeKutta):
    """The classical Runge-Kutta method, fourth order: 4 num_steps network calls, the last at t_end."""

    name: ClassVar[str] = "rk4"

    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        first = field(x, step.t)
        second = field(torch.add(x, first, alpha=step.size / 2), step.t_middle)
        third = field(torch.add(x, second, alpha=step.size / 2), step.t_middle)
        fourth = field(torch.add(x, third, alpha=step.size), step.t_after)
        return torch.add(x, first + 2 * (second + third) + fourth, alpha=step.size / 6)


@dataclass(frozen=True)
class Dopri5(ODESolver):
    """Dormand-Prince 5(4) with adaptive steps, from torchdiffeq; SiT's default ODE solver and tolerances.

    The tolerances decide the number of network calls, for the batch as a whole: within them a sample depends on its
    batch. num_steps and shift decide only which states `on_step` gets, after the solve.
    """

    atol: float = 1e-6
    rtol: float = 1e-3

    name: ClassVar[str] = "dopri5"

    def __post_init__(self) -> None:
        super().__post_init__()
        for key in ("atol", "rtol"):
            if not 0 < getattr(self, key) < math.inf:
                raise ValueError(f"sampler.solver_options.{key} must be positive, got {getattr(self, key)}")

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        from torchdiffeq import odeint

        levels = self.grid(interpolant, t_end, 1 if on_step is ignore else self.num_steps)
        grid = torch.tensor(levels, dtype=torch.float64, device=x.device)

        def velocity(t: Tensor, x: Tensor) -> Tensor:
            return field(x, t.clamp(levels[-1], levels[0]).to(x.dtype).expand(len(x)))

        # By default it steps past the end and interpolates back, and its first guess of a step may lie anywhere: the
        # network would get noise levels outside of [0, 1].
        options = {"step_t": grid[-1:]}
        try:
            states = odeint(velocity, x, grid, atol=self.atol, rtol=self.rtol, method="dopri5", options=options)
        except AssertionError as error:  # torchdiffeq's only signal of a step that cannot be made small enough
            raise ValueError(
                f"dopri5 can take no step of its tolerances ({error}): the velocity is NaN or infinite, as after a "
                "training that has diverged, or sampler.solver_options.rtol and atol are too small"
            ) from error
        for after, state in zip(levels[1:], states[1:], strict=True):
            on_step(after, state)
        return states[-1]
