"""An objective in one file: flow matching with a pseudo-Huber error, which outliers move less than a squared one."""

from __future__ import annotations

from typing import Any

from flowexp.objectives import FlowMatching, StepLosses, TrainingBatch


class PseudoHuberFlow(FlowMatching):
    """Regresses the velocity by sqrt(e + c^2) - c, with e the mean squared error of a row.

    Arguments:
        c: errors far above c^2 count by their root, those far below in proportion.
        parts: those of FlowMatching.
    """

    objective = "huber"

    def __init__(self, *, c: float = 0.1, **parts: Any) -> None:
        super().__init__(**parts)
        if c <= 0:
            raise ValueError(f"objective.c must be positive, got {c}")
        self.c = c

    def losses(self, batch: TrainingBatch) -> StepLosses:
        step = self.forward_step(batch)
        error = self.error(step)
        huber = (error + self.c**2).sqrt() - self.c
        return self.total(step, error, {"velocity": (1.0, huber.mean())})
