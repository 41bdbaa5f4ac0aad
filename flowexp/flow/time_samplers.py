"""Time samplers: the law of the noise level t in training."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass, field

import torch
from torch import Tensor

from flowexp.flow.choices import chosen
from flowexp.flow.time import Interval, check_shift, progress, shifted, unshifted

FARTHEST = 100.0  # where sigmoid(m) has long been 0 or 1 in float32


@dataclass(frozen=True)
class TimeSampler(ABC):
    """A law on [0, 1], moved by `shift`; another interval is reached by an affine map.

    shift: see `flowexp.flow.time.shifted`; SD3 and RAE train with one above 1 on large latents. 1 is none.
    """

    shift: float = field(default=1.0, kw_only=True, repr=False)

    def __post_init__(self) -> None:
        check_shift(self.shift, "time_sampler.shift")

    def __str__(self) -> str:
        return repr(self) if self.shift == 1 else f"{self!r}, shifted by {self.shift:g}"

    def __call__(self, num: int, generator: torch.Generator, interval: Interval = (0.0, 1.0)) -> Tensor:
        """`num` noise levels in `interval`, `(num,)` float32 on the generator's device."""
        low, high = interval
        return (low + (high - low) * shifted(self.draw(num, generator), self.shift)).clamp_(low, high)

    @abstractmethod
    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        """`num` noise levels in [0, 1], float32 (num,), before the shift."""

    @abstractmethod
    def density_before_shift(self, t: Tensor) -> Tensor:
        """Probability density of `draw` at `t` in [0, 1], of the same shape."""

    def density(self, t: Tensor) -> Tensor:
        """Probability density of one draw at `t` in [0, 1], of the same shape."""
        slope = self.shift / (self.shift - (self.shift - 1.0) * t) ** 2  # of `unshifted`
        return self.density_before_shift(unshifted(t, self.shift)) * slope

    def share_below(self, t: float, interval: Interval = (0.0, 1.0)) -> float:
        """The probability that one draw in `interval` lies below `t`."""
        low, high = interval
        return self.share_before_shift(unshifted(min(1.0, max(0.0, (t - low) / (high - low))), self.shift))

    def share_before_shift(self, t: float, num_points: int = 10_000) -> float:
        """The probability that `draw` lies below `t` in [0, 1]: the integral of its density."""
        midpoints = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points * t
        return t * float(self.density_before_shift(midpoints).mean())

    def chance_of_none(self, share: float, num: int) -> float:
        """The probability that none of `num` draws made together is among a `share` of the law."""
        return float((1 - share) ** num)


@dataclass(frozen=True)
class Uniform(TimeSampler):
    """t ~ U(0, 1), independent draws (LCF Algorithm 1)."""

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        return torch.rand(num, generator=generator, device=generator.device)

    def density_before_shift(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class LogitNormal(TimeSampler):
    """t = sigmoid(m + s n) with n ~ N(0, 1) (LCF eq. 16); a negative `m` puts the mass at low noise.

    LCF's prose on the sign of m contradicts its formula and numbers; this is the formula.
    """

    m: float = 0.0
    s: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.s > 0:
            raise ValueError(f"the logit-normal's s must be positive, got {self.s}")
        if not (abs(self.m) <= FARTHEST and self.s <= FARTHEST):
            raise ValueError(
                f"time_sampler.m and s of the logit-normal must be at most {FARTHEST:g} in size, got {self.m} and "
                f"{self.s}: beyond, every t is 0 or 1"
            )

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        normal = torch.randn(num, generator=generator, device=generator.device)
        return torch.sigmoid(self.m + self.s * normal)

    def density_before_shift(self, t: Tensor) -> Tensor:
        normal = (torch.logit(t) - self.m) / self.s
        density = torch.exp(-(normal**2) / 2) / (self.s * math.sqrt(2 * math.pi) * t * progress(t))
        return torch.where((t > 0) & (t < 1), density, 0.0)  # 0 / 0 at the ends, where the limit is 0

    def share_before_shift(self, t: float, num_points: int = 10_000) -> float:
        """Phi((logit t - m) / s), exact: for s above 3 the density piles up at the ends, where no sum over it holds."""
        place = torch.tensor(t, dtype=torch.float64)
        return float(torch.special.ndtr((torch.logit(place) - self.m) / self.s))


@dataclass(frozen=True)
class Stratified(TimeSampler):
    """Systematic draws t = (i + u) / num in a shuffled order: each is uniform, together they leave no gap.

    The number of rows below a level T is floor or ceil of num * T, where independent draws make it binomial.
    """

    def draw(self, num: int, generator: torch.Generator) -> Tensor:
        offset = torch.rand(1, generator=generator, device=generator.device)
        return (torch.randperm(num, generator=generator, device=generator.device) + offset) / num

    def density_before_shift(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def chance_of_none(self, share: float, num: int) -> float:
        """Of a share that begins at 0; of a law that is shifted too, for a shift keeps the order."""
        return max(0.0, 1 - share * num)


TIME_SAMPLERS: dict[str, type[TimeSampler]] = {
    "uniform": Uniform,
    "logit_normal": LogitNormal,
    "stratified": Stratified,
}


def create_time_sampler(name: str, **options: float) -> TimeSampler:
    """The time sampler of that name."""
    return chosen("time sampler", name, TIME_SAMPLERS)(**options)
