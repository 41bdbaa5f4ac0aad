"""Solvers: from noise at t = 1 to a sample at t = 0 along a velocity field; they count their network calls (NFE)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor

from flowexp.interpolants import Interpolant
from flowexp.profiles import Schedule
from flowexp.time import progress
from flowexp.velocity import Counted, Field

Draw = Callable[[], Tensor]
OnStep = Callable[[float, Tensor], None]


@dataclass(frozen=True)
class Solution:
    """x: the state (B, ...) at the end; nfe: network calls that it took."""

    x: Tensor
    nfe: int


@dataclass(frozen=True)
class Solver(ABC):
    """An integrator of dx/dt = field(x, t) from high to low t."""

    num_steps: int = 50

    name: ClassVar[str]
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"a solver needs num_steps of at least 1, got {self.num_steps}")

    def solve(
        self,
        field: Field,
        noise: Tensor,
        interpolant: Interpolant,
        draw: Draw | None = None,
        on_step: OnStep | None = None,
        t_end: float = 0.0,
    ) -> Solution:
        """Integrate from the noise end of `interpolant` down to `t_end`.

        field: takes x (B, ...) and t (B,). noise: the start (B, ...), float32 or float64; the state keeps its dtype.
        draw: the next Gaussian noise, shaped like `noise`, on any device; only stochastic solvers call it.
        on_step: called with (t reached, x there) after every step; x must not be changed.
        """
        if not 0 <= t_end < 1:
            raise ValueError(f"t_end must lie in [0, 1), got {t_end}")
        if self.stochastic and draw is None:
            raise ValueError(f"{self.name} is stochastic: pass draw, a function that returns noise shaped like x")
        counted = Counted(field)
        x = self.integrate(counted, noise, interpolant, draw or _no_noise, on_step or _ignore, t_end)
        return Solution(x, counted.nfe)

    @abstractmethod
    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        """The state at `t_end`. Everything that depends on t alone is computed before the first step."""


@dataclass(frozen=True)
class Euler(Solver):
    """Euler's method on a uniform grid: num_steps steps, num_steps network calls."""

    name: ClassVar[str] = "euler"

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = _ode_grid(interpolant, t_end, self.num_steps)
        for t, (level, after) in zip(_rows(levels, x), pairwise(levels), strict=False):
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
        levels = _ode_grid(interpolant, t_end, self.num_steps)
        rows = _rows(levels, x)
        for step, (level, after) in enumerate(pairwise(levels)):
            velocity = field(x, rows[step])
            predicted = torch.add(x, velocity, alpha=after - level)
            if step + 1 < self.num_steps:
                corrector = velocity + field(predicted, rows[step + 1])
                predicted = torch.add(x, corrector, alpha=(after - level) / 2)
            x = predicted
            on_step(after, x)
        return x


# D(t) of the reverse SDE below, whose marginals are the same for every D >= 0.
DIFFUSIONS: dict[str, Callable[[Interpolant, Tensor], Tensor]] = {
    "sigma": lambda interpolant, t: interpolant.sigma(t),
}


@dataclass(frozen=True)
class EulerMaruyama(Solver):
    """Euler-Maruyama for the reverse SDE dx = (v - D score) dt + sqrt(2 D) dW, t falling (LCF eq. 5, w = 2 D).

    Exactly num_steps network calls, on REPA's grid: num_steps - 1 stochastic steps to `last_step`, uniform, then one
    step of the same drift without noise to the end. Where the end t_end lies above last_step all steps are stochastic.
    One call serves the drift and the score, which is linear in velocity and x.

    diffusion: the form of D(t); "sigma" is SiT's and REPA's. The papers' w_t = sigma_t means this D = sigma_t.
    last_step: the noise level of the last call, whatever num_steps (SiT, REPA: 0.04).
    drift_scale: a scale (function of progress) on the velocity in the drift, but not in the score; None is 1. The
        second reading of SSC, whose first one scales the field itself.
    """

    diffusion: str = "sigma"
    last_step: float = 0.04
    drift_scale: Schedule | None = None

    name: ClassVar[str] = "euler_maruyama"
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.diffusion not in DIFFUSIONS:
            raise ValueError(f"diffusion must be one of {', '.join(DIFFUSIONS)}, got {self.diffusion!r}")
        if not 0 <= self.last_step < 1:
            raise ValueError(f"last_step must lie in [0, 1), got {self.last_step}")

    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        levels = self._grid(interpolant, t_end)
        coefficients = self._coefficients(interpolant, levels, quiet_end=t_end < self.last_step)
        for t, after, (keep, move, shake) in zip(_rows(levels, x), levels[1:], coefficients, strict=False):
            x = torch.add(keep * x, field(x, t), alpha=move)
            if shake > 0:
                x = x.add_(draw().to(x), alpha=shake)
            on_step(after, x)
        return x

    def _grid(self, interpolant: Interpolant, t_end: float) -> list[float]:
        high = interpolant.ode_interval[1]
        if t_end >= self.last_step:
            return _linspace(high, t_end, self.num_steps + 1)
        return [*_linspace(high, self.last_step, self.num_steps), t_end]

    def _coefficients(
        self, interpolant: Interpolant, levels: list[float], quiet_end: bool
    ) -> list[tuple[float, float, float]]:
        """(keep, move, shake) of every step x <- keep x + move velocity + shake noise."""
        grid = torch.tensor(levels, dtype=torch.float64)
        t, size = grid[:-1], grid[:-1] - grid[1:]
        one, zero = torch.ones_like(t), torch.zeros_like(t)
        from_velocity = interpolant.score_from_velocity(one, zero, t)
        from_x = interpolant.score_from_velocity(zero, one, t)
        scale = one if self.drift_scale is None else self.drift_scale(progress(t))
        diffusion = DIFFUSIONS[self.diffusion](interpolant, t)
        keep = 1 + size * diffusion * from_x
        move = size * (diffusion * from_velocity - scale)
        shake = torch.sqrt(2 * diffusion * size)
        if quiet_end:
            shake[-1] = 0
        return list(zip(keep.tolist(), move.tolist(), shake.tolist(), strict=True))


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

        levels = _ode_grid(interpolant, t_end, 1 if on_step is _ignore else self.num_steps)
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


SOLVERS: dict[str, type[Solver]] = {solver.name: solver for solver in (Euler, Heun, EulerMaruyama, Dopri5)}


def create_solver(name: str, num_steps: int = 50, **options: Any) -> Solver:
    """The solver of that name; options are its further fields."""
    if name not in SOLVERS:
        raise ValueError(f"solver must be one of {', '.join(SOLVERS)}, got {name!r}")
    return SOLVERS[name](num_steps, **options)


def _ode_grid(interpolant: Interpolant, t_end: float, num_steps: int) -> list[float]:
    low, high = interpolant.ode_interval
    return _linspace(high, max(low, t_end), num_steps + 1)


def _linspace(start: float, end: float, num: int) -> list[float]:
    return torch.linspace(start, end, num, dtype=torch.float64).tolist()


def _rows(levels: list[float], x: Tensor) -> tuple[Tensor, ...]:
    """Every level as the (B,) tensor that the field takes, all moved to the device at once."""
    return torch.tensor(levels, dtype=x.dtype, device=x.device)[:, None].repeat(1, len(x)).unbind()


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic solver asked for noise")


def _ignore(t: float, x: Tensor) -> None:
    """Nobody watches."""
