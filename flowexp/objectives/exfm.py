"""Explicit Flow Matching (ExFM): the regression target is averaged over many data that could have led to xt."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from flowexp.flow.losses import explicit_velocity, velocity_error
from flowexp.flow.time import expand
from flowexp.objectives.fm import FlowMatching
from flowexp.objectives.terms import Step
from flowexp.training.couplings import Independent
from flowexp.training.parallel.rows import gather_rows
from flowexp.training.step_draws import TrainingBatch

PAIR_BELOW = 1e-3  # the noise level below which one candidate has all the weight


class ExplicitFlowMatching(FlowMatching):
    """Regresses a Monte-Carlo estimate of the marginal velocity instead of that of one pair (LCF Figure 11's ExFM).

    The candidates are `num_candidates` training images, drawn anew at every step and the same on all processes, and the
    images of the batch on all processes, that of the row included. LCF does not state their number. Near clean data one
    candidate takes all the weight, and the target is that of flow matching: below t = 1e-3, where the average is a
    difference of nearly equal numbers over t, it is the pair's own. A network that predicts data or noise regresses
    their averages. Given a class, the candidates are those of the class; where the label was dropped, all.

    Arguments:
        num_candidates: training images beside those of the batch; without a Trainer there are none.
        parts: those of FlowMatching.

    Raises:
        ValueError: captions, each of which has one image, or noise that is not independent of the data.
    """

    objective = "exfm"

    def __init__(self, *, num_candidates: int = 1024, **parts: Any) -> None:
        super().__init__(**parts)
        if num_candidates < 0:
            raise ValueError(f"objective.num_candidates must be at least 0, got {num_candidates}")
        if self.backbone.takes == "text":
            raise ValueError("objective=exfm averages over the images of a class, and a caption has one: take another")
        if self.coupling != Independent():
            raise ValueError(
                f"objective=exfm is the mean over independent pairs, got {self.coupling}: set coupling=independent"
            )
        self.num_candidates = num_candidates

    def describe(self, batch_size: int) -> dict[str, str]:
        return {**super().describe(batch_size), "candidates": f"{self.num_candidates} and the batch"}

    @torch.no_grad()
    def target(self, batch: TrainingBatch, xt: Tensor, t: Tensor) -> Tensor:
        data, _ = gather_rows(batch.data)
        label = None if batch.label is None else gather_rows(batch.label)[0]
        if self._trainer is not None and self.num_candidates:
            further, further_label = self._further_candidates(batch)
            data = torch.cat([data, further])
            label = None if label is None else torch.cat([label, further_label])
        allowed = self._allowed(batch.label, label)
        average = explicit_velocity(xt, t, data, self.interpolant, allowed=allowed, t_min=PAIR_BELOW)
        return torch.where(expand(t, xt) < PAIR_BELOW, super().target(batch, xt, t), average)

    def error(self, step: Step) -> Tensor:
        """The error (B,) of FM, where data and noise are those that the averaged velocity is made of."""
        kinds = ("data", "noise")
        data, noise = (self.interpolant.convert(step.target, step.xt, step.t, "velocity", kind) for kind in kinds)
        where = (data, noise, step.xt, step.t, self.interpolant)
        return velocity_error(*self.parameterization.compared(step.output, step.target, *where))

    def _further_candidates(self, batch: TrainingBatch) -> tuple[Tensor, Tensor]:
        """Training images as data, (num_candidates, ...), and their classes."""
        datamodule = self.trainer.datamodule  # type: ignore[attr-defined]
        rows = torch.randint(len(datamodule.train), (self.num_candidates,), generator=batch.key.candidates())
        chosen, device = datamodule.train.select(rows), batch.data.device
        return datamodule.to_data(chosen.images.to(device)), chosen.labels.to(device)

    def _allowed(self, seen: Tensor | None, candidates: Tensor | None) -> Tensor | None:
        """(B, N): whether a candidate can have led to a row, by the labels of both; None without a condition."""
        if seen is None or candidates is None or (null := self.backbone.null_label) is None:
            return None
        return (seen[:, None] == candidates) | (seen == null)[:, None]
