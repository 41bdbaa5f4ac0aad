"""What the output of a network means, in which space it is compared, and the velocity that follows from it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.velocity import Network

Space = Literal["velocity", "data", "noise"]
SPACES: tuple[Space, ...] = get_args(Space)


@dataclass(frozen=True)
class Parameterization:
    """The network returns `prediction`; the squared error is taken in `loss_space`. Both default to the velocity.

    In any space an error is the velocity's, weighted by a function of t: x-prediction in data space is LCF Figure 11's
    baseline, x-prediction in velocity space is JiT (Li and He, 2025).

    What follows from data divides by sigma, which is 0 at t = 0; what follows from noise divides by alpha, which is 0
    at t = 1. The divisor is at least `clamp`, in the prediction and in its target alike, in training and in
    sampling, as JiT does with 0.05. clamp=0 is the exact conversion, infinite at that end.

    So a sampler of data predictions slows down below the clamp c. On the linear path a step of Euler from t to 0 goes
    t / c of the way to the predicted data (a last step of an SDE from 0.04, by "euler" or "tweedie", four fifths), and
    many small steps leave exp(-1) of the noise that was there at c. `Sampler.final_jump` alone goes all the way.
    """

    prediction: Space = "velocity"
    loss_space: Space = "velocity"
    clamp: float = 0.05

    def __post_init__(self) -> None:
        for key, value in (("prediction", self.prediction), ("loss_space", self.loss_space)):
            check_choice(f"parameterization.{key}", value, SPACES)
        if not 0 <= self.clamp < 1:
            raise ValueError(f"parameterization.clamp must lie in [0, 1), got {self.clamp}")

    def velocity(self, output: Tensor, xt: Tensor, t: Tensor, interpolant: Interpolant) -> Tensor:
        """The velocity (B, ...) that an output at (xt, t) stands for."""
        return self._converted(output, "velocity", xt, t, interpolant)

    def attainable(self, target: Tensor, xt: Tensor, t: Tensor, interpolant: Interpolant) -> Tensor:
        """The velocity (B, ...) that a perfect output stands for: `target`, but where the divisor is clamped."""
        perfect = interpolant.convert(target, xt, t, "velocity", self.prediction)
        return self.velocity(perfect, xt, t, interpolant)

    def compared(
        self, output: Tensor, target: Tensor, data: Tensor, noise: Tensor, xt: Tensor, t: Tensor, path: Interpolant
    ) -> tuple[Tensor, Tensor]:
        """Output and target in the space of the loss, (B, ...) each; the error is their squared difference.

        target: the regressed velocity. data, noise: its parts, the targets of a network that predicts one of them.
        """
        truth = {"velocity": target, "data": data, "noise": noise}[self.prediction]
        if self.loss_space == self.prediction:
            return output, truth
        where = self.loss_space, xt, t, path
        return self._converted(output, *where), self._converted(truth, *where)

    def _converted(self, value: Tensor, to: str, xt: Tensor, t: Tensor, path: Interpolant) -> Tensor:
        """A `value` of the kind that is predicted, as another; the divisor is clamped."""
        if self.prediction != "velocity":
            t = t.clamp(*clamped_interval(path, self.prediction, self.clamp))
        return path.convert(value, xt, t, self.prediction, to)


@dataclass(frozen=True)
class VelocityNetwork:
    """A network as samplers and diagnostics see it: called as (x, t, label), it gives velocities."""

    backbone: Network
    interpolant: Interpolant
    parameterization: Parameterization

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None, /) -> Tensor:
        return self.velocity(self.backbone(x, t, label), x, t)

    def velocity(self, output: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The velocity (B, ...) that an output at (xt, t) stands for."""
        return self.parameterization.velocity(output, xt, t, self.interpolant)

    def null_condition(self, label: Tensor | None) -> Tensor | None:
        return self.backbone.null_condition(label)

    def attainable(self, target: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """The velocity (B, ...) of a perfect output, see `Parameterization.attainable`."""
        return self.parameterization.attainable(target, xt, t, self.interpolant)

    def unclamped(self) -> VelocityNetwork:
        """The same with exact conversions, for levels strictly between 0 and 1."""
        return replace(self, parameterization=replace(self.parameterization, clamp=0.0))


@cache
def clamped_interval(interpolant: Interpolant, source: str, clamp: float) -> tuple[float, float]:
    """The noise levels at which all else follows from `source` with a divisor of at least `clamp`."""
    if source == "data":
        return _crossing(lambda t: interpolant.sigma(t) - clamp), 1.0
    return 0.0, _crossing(lambda t: clamp - interpolant.alpha(t))


def _crossing(rising: Callable[[Tensor], Tensor]) -> float:
    """Where a rising function of t in [0, 1] reaches 0, by bisection; an end of the interval where it never does."""
    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        is_below = float(rising(torch.tensor(middle, dtype=torch.float64))) < 0
        low, high = (middle, high) if is_below else (low, middle)
    return high
