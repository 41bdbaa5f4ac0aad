"""The rows of a batch on either side of T_min, and the weights that make their means those of the global batch."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.training.step_draws import TrainingBatch


@dataclass(frozen=True)
class RowSplit:
    """LCF Algorithm 1, line 4, for the rows that this process holds.

    Gradients are averaged over processes, errors over the rows of the global batch: that of a row counts with the
    number of processes over the number of such rows.

    Arguments:
        low: rows below T_min, (K,).
        regressed: rows that are regressed, (R,). A process that has none sends its first row through the network, with
            weight 0, so that all take part in the exchange of gradients.
        num_regressed: how many they are without that one.
        low_weight, regressed_weight: of a row's error.
        any_low: whether any process has a row below T_min.
    """

    low: Tensor
    regressed: Tensor
    num_regressed: int
    low_weight: float
    regressed_weight: float
    any_low: bool

    @property
    def regressed_share(self) -> float:
        """What a mean over this process's regressed rows is multiplied by, see `flowexp.objectives.terms.Tapped`."""
        return self.regressed_weight * self.num_regressed


def split_rows(t_min: float, batch: TrainingBatch, regress_below: bool = False) -> RowSplit:
    """Which rows are low is decided on the CPU, where t was drawn, for the global batch.

    regress_below: whether rows below t_min are regressed as well.
    """
    everyone = batch.t if batch.everyone_t is None else batch.everyone_t
    processes, num_low = len(everyone) / len(batch.t), int((everyone < t_min).sum())
    low = (batch.t < t_min).nonzero().squeeze(1)
    regressed = torch.arange(len(batch.t)) if regress_below else (batch.t >= t_min).nonzero().squeeze(1)
    of_everyone = len(everyone) if regress_below else len(everyone) - num_low
    sent = regressed if len(regressed) else torch.zeros(1, dtype=torch.long)
    return RowSplit(
        low=low.to(batch.data.device, non_blocking=True),
        regressed=sent.to(batch.data.device, non_blocking=True),
        num_regressed=len(regressed),
        low_weight=processes / max(1, num_low),
        regressed_weight=processes / of_everyone if len(regressed) else 0.0,
        any_low=num_low > 0,
    )
