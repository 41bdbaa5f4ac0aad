"""Explicit Flow Matching (ExFM): the regression target is averaged over many data that could have led to xt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowexp.data import to_float
from flowexp.losses import explicit_velocity
from flowexp.modules.batch import TrainingBatch
from flowexp.modules.flow_matching import FlowMatching


class ExplicitFlowMatching(FlowMatching):
    """Regresses a Monte-Carlo estimate of the marginal velocity instead of that of one pair (LCF Figure 11's ExFM).

    The candidates are `num_candidates` training images, drawn anew at every step and the same on all processes, and the
    images of the batch, the row's own included. LCF does not state their number. Near clean data one candidate takes
    all the weight, and the target is that of flow matching.

    Arguments:
        num_candidates: training images beside those of the batch; without a Trainer there are none.
        parts: those of FlowMatching.
    """

    def __init__(self, *, num_candidates: int = 1024, **parts: Any) -> None:
        super().__init__(**parts)
        if num_candidates < 0:
            raise ValueError(f"objective.num_candidates must be at least 0, got {num_candidates}")
        self.num_candidates = num_candidates

    @property
    def objective(self) -> str:
        return "exfm"

    def describe(self, batch_size: int) -> dict[str, str]:
        return {**super().describe(batch_size), "candidates": f"{self.num_candidates} and the batch"}

    @torch.no_grad()
    def target(self, batch: TrainingBatch, xt: Tensor, t: Tensor) -> Tensor:
        candidates = torch.cat([batch.data, *self._further_candidates(batch)])
        return explicit_velocity(xt, t, candidates, self.interpolant)

    def _further_candidates(self, batch: TrainingBatch) -> list[Tensor]:
        if self._trainer is None or not self.num_candidates:
            return []
        train = self.trainer.datamodule.train  # type: ignore[attr-defined]
        rows = torch.randint(len(train), (self.num_candidates,), generator=batch.key.candidates())
        return [to_float(train.select(rows).images.to(batch.data.device))]
