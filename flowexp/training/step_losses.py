"""What comes out of a training step."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

Parts = dict[str, tuple[float, Tensor]]  # by name: the weight of a part of the loss, and its scalar


@dataclass(frozen=True)
class StepLosses:
    """What a training step computes.

    Arguments:
        loss: scalar to be minimised.
        terms: the named parts of the loss, scalars without gradient.
        error: squared velocity error of each regressed row, (R,), without gradient, in whatever space the loss is.
        t: noise level of those rows, (R,).
    """

    loss: Tensor
    terms: dict[str, Tensor]
    error: Tensor
    t: Tensor
