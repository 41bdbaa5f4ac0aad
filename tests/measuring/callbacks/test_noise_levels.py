from __future__ import annotations

import pytest
import torch

from flowexp.data import to_float
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.measuring.diagnostics import loss_by_noise_level


def measure(monitor, module, datamodule):
    with module.averaged():
        return monitor.measure(module, datamodule, seed=0)


def test_the_table_has_training_and_test_side_by_side(module, datamodule):
    monitor = NoiseLevelMonitor(num_bins=20, num_images=16)
    t, error = torch.tensor([0.01, 0.02, 0.97]), torch.tensor([1.0, 3.0, 5.0])
    monitor.sums.update(t, error)
    found = measure(monitor, module, datamodule)
    train = [(row["t"], row["loss"]) for row in found.rows if row["split"] == "train"]
    test = [row for row in found.rows if row["split"] == "test"]
    assert train == [(0.025, 2.0), (0.975, 5.0)]
    assert [row["t"] for row in test] == [pytest.approx((i + 0.5) / 20) for i in range(20)]
    assert found.scalars["noise_levels/loss"] == pytest.approx(sum(row["loss"] for row in test) / 20)
    assert len({tuple(row) for row in found.rows}) == 1 and len(found.figure.axes) == 2


@pytest.mark.slow
def test_a_report_begins_the_next(module, datamodule):
    monitor = NoiseLevelMonitor(num_bins=4, num_images=8)
    monitor.sums.update(torch.tensor([0.1]), torch.tensor([1.0]))
    for expected in (1, 0):
        rows = measure(monitor, module, datamodule).rows
        assert sum(row["split"] == "train" for row in rows) == expected


@pytest.mark.slow
def test_the_test_curve_does_not_depend_on_what_was_trained_before(module, datamodule):
    first, second = NoiseLevelMonitor(4, 8), NoiseLevelMonitor(4, 8, batch_size=3)
    first.sums.update(torch.tensor([0.1]), torch.tensor([1.0]))
    curves = [
        [row["loss"] for row in measure(m, module, datamodule).rows if row["split"] == "test"] for m in (first, second)
    ]
    assert curves[0] == pytest.approx(curves[1], rel=1e-5)


@pytest.mark.slow
def test_a_conditional_network_sees_the_labels_of_the_test_images(conditional_module, datamodule):
    module, test = conditional_module, datamodule.test.subset(16)
    found = measure(NoiseLevelMonitor(num_bins=2, num_images=16), module, datamodule)
    with module.averaged():
        expected = loss_by_noise_level(
            module.backbone, module.interpolant, test.images, [0.25, 0.75], 0, labels=test.labels, prepare=to_float
        )
    assert [row["loss"] for row in found.rows] == pytest.approx([expected[t].loss for t in (0.25, 0.75)])
