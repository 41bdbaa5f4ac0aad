"""Solvers of the reverse SDE, whose score comes from the same network call as the velocity: Euler-Maruyama and Heun."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar, Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.profiles import Schedule
from flowexp.flow.solvers.base import Draw, OnStep, Solver, levels_between, rows_of
from flowexp.flow.solvers.diffusions import DIFFUSIONS
from flowexp.flow.time import progress, shifted, unshifted
from flowexp.flow.velocity import Field

LastStep = Literal["mean", "tweedie", "euler", "none"]
LAST_STEPS: tuple[LastStep, ...] = get_args(LastStep)


@dataclass(frozen=True)
class Combination:
    """The map (x, velocity) -> of_x x + of_velocity velocity at one noise level."""

    of_x: float
    of_velocity: float

    def __call__(self, x: Tensor, velocity: Tensor) -> Tensor:
        return torch.add(self.of_x * x, velocity, alpha=self.of_velocity)

    def step(self, size: float) -> Combination:
        """x plus `size` times this combination."""
        return Combination(1 + size * self.of_x, size * self.of_velocity)

    def times(self, size: float) -> Combination:
        return Combination(size * self.of_x, size * self.of_velocity)


@dataclass(frozen=True)
class SDEStep:
    """One stochastic step: its size, its drift where it starts and where it ends (None in the last step of a
    solve, which needs no velocity there), and the standard deviation of its noise."""

    size: float
    drift: Combination
    drift_after: Combination | None
    noise_std: float


@dataclass(frozen=True)
class StochasticSolver(Solver):
    """An integrator of the reverse SDE dx = (v - D score) dt + sqrt(2 D) dW, t falling (LCF eq. 5, w = 2 D).

    It runs on SiT's and REPA's grid: num_steps - 1 stochastic steps to `last_step`, uniform without a shift, then one
    step without noise to the end. Where the end t_end lies above last_step all steps are stochastic, and so they are
    without a last step. One call serves the drift and the score, which is linear in velocity and x.

    diffusion: the form of D(t), one of `diffusions.DIFFUSIONS`; "sigma" is the default of SiT's code and REPA's. The
        papers' w_t = sigma_t means this D = sigma_t.
    diffusion_norm: the n of these forms, at least 0; 0 takes the noise away in all of them but "decreasing".
    last_step: the noise level of the last call, whatever num_steps (SiT, REPA: 0.04); 0 is as last_step_kind "none".
    last_step_kind: "mean", the same drift without noise; "tweedie", the expected data given x (a part of the way to it
        where a prediction of data is clamped, see `Parameterization`); "euler", a step of the ODE; "none", no such
        step: all are stochastic, to the end of the path's interval (SiT's `last_step=None`).
    start_eps: where D is infinite at the noise end ("sbdm" on Linear and GVP), how far below it the first call is, on
        pure noise: SiT's `sample_eps`. None is one step: with less of it the step, of size h, overshoots, for h D is
        then about h / start_eps > 1. The default of SiT, 0, divides by zero.
    drift_scale: a scale (function of progress) on the velocity in the drift, but not in the score; None is 1. The
        second reading of SSC; the first scales the field itself.
    """

    diffusion: str = "sigma"
    diffusion_norm: float = 1.0
    last_step: float = 0.04
    last_step_kind: LastStep = "mean"
    start_eps: float | None = None
    drift_scale: Schedule | None = None

    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        check_choice("diffusion", self.diffusion, DIFFUSIONS)
        if not 0 <= self.diffusion_norm < math.inf:
            raise ValueError(f"diffusion_norm must be at least 0, got {self.diffusion_norm}")
        check_choice("last_step_kind", self.last_step_kind, LAST_STEPS)
        if not 0 <= self.last_step < 1:
            raise ValueError(f"last_step must lie in [0, 1), got {self.last_step}")
        if self.start_eps is not None and not 0 < self.start_eps < 1:
            raise ValueError(f"start_eps must lie between 0 and 1, or be null for one step; got {self.start_eps}")

    @abstractmethod
    def advance(self, field: Field, x: Tensor, t: Tensor, t_after: Tensor, step: SDEStep, draw: Draw) -> Tensor:
        """The state (B, ...) after one stochastic step from t to t_after, both (B,)."""

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels, ends_without_noise = self._grid(interpolant, t_end)
        steps = self._steps(interpolant, levels, ends_without_noise)
        jump = self._last(interpolant, levels) if ends_without_noise else None
        rows = rows_of(levels, x)
        for place, step in enumerate(steps):
            x = self.advance(field, x, rows[place], rows[place + 1], step, draw)
            on_step(levels[place + 1], x)
        if jump is not None:
            x = jump(x, field(x, rows[-2]))
            on_step(t_end, x)
        return x

    def _grid(self, interpolant: Interpolant, t_end: float) -> tuple[list[float], bool]:
        """The num_steps + 1 noise levels, and whether the last step is one without noise."""
        low, high = interpolant.ode_interval
        ends_without_noise = self.last_step_kind != "none" and t_end < self.last_step
        end, num = (self.last_step, self.num_steps - 1) if ends_without_noise else (max(low, t_end), self.num_steps)
        if not self._diffusion(interpolant, torch.tensor([high], dtype=torch.float64)).isfinite().all():
            if num < 1 and self.start_eps is None:
                raise ValueError(
                    f"diffusion={self.diffusion} is infinite at the noise end of this path, and the first step starts "
                    "one below: num_steps must be at least 2, or start_eps be given"
                )
            high = self._one_step_below(high, end, num) if self.start_eps is None else high - self.start_eps
        levels = levels_between(high, end, num + 1, self.shift)
        return ([*levels, t_end], True) if ends_without_noise else (levels, False)

    def _one_step_below(self, high: float, end: float, num: int) -> float:
        high, end = unshifted(high, self.shift), unshifted(end, self.shift)
        return shifted(high - (high - end) / (num + 1), self.shift)

    def _diffusion(self, interpolant: Interpolant, t: Tensor) -> Tensor:
        return DIFFUSIONS[self.diffusion](interpolant, t, self.diffusion_norm)

    def _scale(self, t: Tensor) -> Tensor:
        return torch.ones_like(t) if self.drift_scale is None else self.drift_scale(progress(t))

    def _steps(self, interpolant: Interpolant, levels: list[float], ends_without_noise: bool) -> list[SDEStep]:
        """The stochastic steps. The drift is D score - scale v, along falling t."""
        starts = torch.tensor(levels[:-1], dtype=torch.float64)
        from_x, from_velocity = _coefficients(interpolant, starts, "score")
        diffusion = self._diffusion(interpolant, starts)
        of_velocity = diffusion * from_velocity - self._scale(starts)
        drifts = [Combination(*pair) for pair in zip((diffusion * from_x).tolist(), of_velocity.tolist(), strict=True)]
        sizes = [level - after for level, after in pairwise(levels)]
        noise_stds = [math.sqrt(2 * D * size) for D, size in zip(diffusion.tolist(), sizes, strict=True)]
        steps = [SDEStep(*parts) for parts in zip(sizes, drifts, [*drifts[1:], None], noise_stds, strict=True)]
        return steps[:-1] if ends_without_noise else steps

    def _last(self, interpolant: Interpolant, levels: list[float]) -> Combination:
        """The last step, without noise, as one combination of x and the velocity."""
        level, end = levels[-2:]
        t, after = torch.tensor([[level], [end]], dtype=torch.float64)
        if self.last_step_kind == "euler":
            return Combination(0.0, -self._scale(t).item()).step(level - end)
        if self.last_step_kind == "tweedie":
            data, noise = (_coefficients(interpolant, t, quantity) for quantity in ("data", "noise"))
            of_x, of_velocity = (interpolant.interpolate(d, n, after).item() for d, n in zip(data, noise, strict=True))
            return Combination(of_x, of_velocity)
        return self._steps(interpolant, levels, ends_without_noise=False)[-1].drift.step(level - end)


@dataclass(frozen=True)
class EulerMaruyama(StochasticSolver):
    """Euler-Maruyama: x + h drift + sqrt(2 D h) z, taken where the step starts; exactly num_steps network calls."""

    name: ClassVar[str] = "euler_maruyama"

    def advance(self, field: Field, x: Tensor, t: Tensor, t_after: Tensor, step: SDEStep, draw: Draw) -> Tensor:
        moved = step.drift.step(step.size)(x, field(x, t))
        return moved.add_(draw().to(x), alpha=step.noise_std)


@dataclass(frozen=True)
class StochasticHeun(StochasticSolver):
    """SiT's Heun for the SDE: the noise of the step first, then a step of Heun's method along the drift.

    2 num_steps - 1 network calls: the last of the num_steps steps takes one, with noise or without. The drift is second
    order and the whole, as a splitting, weakly first (SiT, transport/integrators.py).
    """

    name: ClassVar[str] = "stochastic_heun"

    def advance(self, field: Field, x: Tensor, t: Tensor, t_after: Tensor, step: SDEStep, draw: Draw) -> Tensor:
        x = torch.add(x, draw().to(x), alpha=step.noise_std)
        velocity = field(x, t)
        predicted = step.drift.step(step.size)(x, velocity)
        if step.drift_after is None:
            return predicted
        half = step.size / 2
        return step.drift.step(half)(x, velocity) + step.drift_after.times(half)(predicted, field(predicted, t_after))


def _coefficients(interpolant: Interpolant, t: Tensor, quantity: str) -> tuple[Tensor, Tensor]:
    """(of x, of velocity) in `quantity`, which is linear in both, at every t."""
    one, zero = torch.ones_like(t), torch.zeros_like(t)
    of_x = interpolant.convert(zero, one, t, "velocity", quantity)
    return of_x, interpolant.convert(one, zero, t, "velocity", quantity)
