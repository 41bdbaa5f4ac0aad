"""A learning-rate schedule of one's own: constant, and a linear fall at the end of the run."""

from __future__ import annotations

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from flowexp.training.lr_schedules import RunLength


def trapezoid(optimizer: Optimizer, run: RunLength, share: float = 0.2) -> LambdaLR:
    """The optimizer's rate until the last `share` of the steps, over which it falls to 0.

    run: how long the run is; flowexp gives it to a schedule that takes it.
    """
    assert run.total_steps is not None, "a run without an end has no last steps"
    total, fall = run.total_steps, max(1, round(share * run.total_steps))
    return LambdaLR(optimizer, lambda step: min(1.0, (total - step) / fall))
