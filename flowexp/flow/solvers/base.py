"""What every solver is: an integrator of a velocity field that counts its network calls (NFE)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from dataclasses import field as dataclass_field
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.time import check_shift, shifted, unshifted
from flowexp.flow.velocity import Counted, Field

Draw = Callable[[], Tensor]
OnStep = Callable[[float, Tensor], None]


@dataclass(frozen=True)
class Solution:
    """x: the state (B, ...) at the end; nfe: network calls that it took."""

    x: Tensor
    nfe: int


@dataclass(frozen=True)
class Solver(ABC):
    """An integrator of dx/dt = field(x, t) from high to low t.

    num_steps: how many steps. shift: moves the levels between them towards noise for shift > 1, see
    `flowexp.flow.time.shifted`; 1 leaves them equidistant.
    """

    num_steps: int = 50
    shift: float = dataclass_field(default=1.0, kw_only=True)

    name: ClassVar[str]
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"a solver needs num_steps of at least 1, got {self.num_steps}")
        check_shift(self.shift, "sampler.shift")

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
        x = self.integrate(counted, noise, interpolant, draw or _no_noise, on_step or ignore, t_end)
        return Solution(x, counted.nfe)

    @abstractmethod
    def integrate(
        self, field: Field, x: Tensor, interpolant: Interpolant, draw: Draw, on_step: OnStep, t_end: float
    ) -> Tensor:
        """The state (B, ...) at `t_end`. Everything that depends on t alone is computed before the first step."""


def linspace(start: float, end: float, num: int) -> list[float]:
    """`num` equidistant levels, both ends included, in float64."""
    return torch.linspace(start, end, num, dtype=torch.float64).tolist()


def levels_between(start: float, end: float, num: int, shift: float) -> list[float]:
    """`num` levels, both ends included, that were equidistant before `shift` moved them, in float64."""
    before = linspace(unshifted(start, shift), unshifted(end, shift), num)
    return [shifted(level, shift) for level in before]


def rows_of(levels: list[float], x: Tensor) -> tuple[Tensor, ...]:
    """Every level as the (B,) tensor that the field takes, all moved to the device at once."""
    return torch.tensor(levels, dtype=x.dtype, device=x.device)[:, None].repeat(1, len(x)).unbind()


def ignore(t: float, x: Tensor) -> None:
    """The `on_step` that does nothing with the state (B, ...)."""


def _no_noise() -> Tensor:
    raise AssertionError("a deterministic solver draws no noise")
