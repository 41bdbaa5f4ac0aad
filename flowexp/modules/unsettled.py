"""A step that was taken before anybody knew whether its gradient is finite; an accelerator tells a step later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from flowexp.draws import TrainingBatch


class UnsettledStep:
    """What must be kept of an optimizer step until the norm of its gradient has reached the host.

    To ask an accelerator for a number at every step would let it wait for the host between two steps. The copy of this
    one is queued at once, and read when the next forward pass is queued behind it.

    Arguments:
        step: optimizer steps taken before it.
        batches: that it accumulated.
        losses: the parts of the last batch's loss.
        norm: of its gradient, a scalar on any device.
    """

    def __init__(self, step: int, batches: Sequence[TrainingBatch], losses: Mapping[str, Tensor], norm: Tensor) -> None:
        self.step = step
        self.batches = batches
        self.losses = losses
        self.rng_state = torch.get_rng_state()
        self._norm = norm.detach().to("cpu", non_blocking=norm.is_cuda)
        self._arrived = torch.cuda.Event() if norm.is_cuda else None
        if self._arrived is not None:
            self._arrived.record()

    def norm(self) -> Tensor:
        """The norm, on the CPU. Waits for what was queued before it, and for nothing queued since."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return self._norm


def skip_unless_finite(optimizer: Optimizer, norm: Tensor) -> bool:
    """Has the optimizer's next step change nothing where `norm` is NaN or infinite, which the device decides.

    That is how a GradScaler skips a step. Only fused optimizers can: returns whether this one is.
    """
    if not all(group.get("fused") for group in optimizer.param_groups):
        return False
    optimizer.grad_scale = None  # type: ignore[attr-defined]
    optimizer.found_inf = (~norm.isfinite()).float()  # type: ignore[attr-defined]
    return True
