"""The two sides of T_min: what processes compute from their rows and average is the mean over the global batch."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from flowexp.objectives.row_split import RowSplit, split_rows
from flowexp.training.step_draws import TrainingBatch

T = torch.tensor([0.01, 0.9, 0.02, 0.03, 0.5, 0.7, 0.8, 0.6])
ERROR = torch.tensor([3.0, 1.0, 4.0, 1.5, 9.0, 2.0, 6.0, 5.0])


def on_each_process(t: Tensor, world_size: int, **options) -> list[tuple[Tensor, RowSplit]]:
    """The rows and the sides of every process."""
    shares = torch.arange(len(t)).chunk(world_size)
    batches = [TrainingBatch(torch.zeros(len(s), 1), torch.zeros(len(s), 1), t[s], everyone_t=t) for s in shares]
    return [(rows, split_rows(0.1, batch, **options)) for rows, batch in zip(shares, batches, strict=True)]


@pytest.mark.parametrize("world_size", [1, 2, 4])
@pytest.mark.parametrize("regress_below", [False, True])
def test_the_average_over_processes_is_the_mean_over_the_rows_of_each_side(world_size: int, regress_below: bool):
    everyone = on_each_process(T, world_size, regress_below=regress_below)
    low = sum(sides.low_weight * ERROR[rows[sides.low]].sum() for rows, sides in everyone) / world_size
    high = sum(sides.regressed_weight * ERROR[rows[sides.regressed]].sum() for rows, sides in everyone) / world_size
    torch.testing.assert_close(low, ERROR[T < 0.1].mean())
    torch.testing.assert_close(high, (ERROR if regress_below else ERROR[T >= 0.1]).mean())


@pytest.mark.parametrize("t_min", [0.02, 0.05, 0.1, 0.2])
def test_a_row_at_t_min_itself_is_regressed_and_not_contrasted(t_min: float):
    """Algorithm 1, line 4: t >= T_min."""
    t = torch.tensor([t_min / 2, t_min, 0.9])
    sides = split_rows(t_min, TrainingBatch(torch.zeros(3, 1), torch.zeros(3, 1), t))
    assert (sides.low.tolist(), sides.regressed.tolist()) == ([0], [1, 2])


def test_a_process_without_a_regressed_row_sends_one_of_weight_0():
    (_, first), _ = on_each_process(torch.tensor([0.01, 0.02, 0.5, 0.9]), 2)
    assert (first.regressed.tolist(), first.num_regressed, first.regressed_weight) == ([0], 0, 0.0)
    assert first.low.tolist() == [0, 1]


def test_every_process_knows_whether_any_has_a_low_row():
    assert [sides.any_low for _, sides in on_each_process(torch.tensor([0.01, 0.5, 0.6, 0.9]), 2)] == [True, True]
    assert [sides.any_low for _, sides in on_each_process(torch.tensor([0.4, 0.5, 0.6, 0.9]), 2)] == [False, False]
    (_, only) = on_each_process(torch.tensor([0.01, 0.02]), 1)[0]
    assert only.low_weight == 0.5 and only.regressed_weight == 0.0
