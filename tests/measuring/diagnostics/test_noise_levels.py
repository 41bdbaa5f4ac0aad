from __future__ import annotations

import pytest
import torch

from flowexp.flow.interpolants import Linear
from flowexp.flow.time import expand, progress
from flowexp.measuring.diagnostics import NoiseLevelSums, bin_centres, loss_by_noise_level


def test_bins_hold_the_mean_error_of_their_levels():
    sums = NoiseLevelSums(num_bins=20)
    t, error = torch.rand(5000), torch.rand(5000)
    for part in torch.arange(5000).split(640):
        sums.update(t[part], error[part])
    for index, found in enumerate(sums.compute()):
        inside = (t >= index / 20) & (t < (index + 1) / 20)
        assert found.count == int(inside.sum())
        assert found.loss == pytest.approx(float(error[inside].mean()), rel=1e-5)
        assert found.t == pytest.approx((index + 0.5) / 20)


def test_the_ends_of_the_axis_belong_to_the_outer_bins():
    sums = NoiseLevelSums(num_bins=4)
    sums.update(torch.tensor([0.0, 1.0]), torch.tensor([2.0, 3.0]))
    assert [found.loss for found in sums.compute()] == [2.0, None, None, 3.0]


def test_a_report_begins_the_next():
    sums = NoiseLevelSums(num_bins=2)
    sums.update(torch.tensor([0.1]), torch.tensor([1.0]))
    sums.reset()
    assert [found.count for found in sums.compute()] == [0, 0]


def test_a_step_without_regressed_rows_adds_nothing():
    sums = NoiseLevelSums(num_bins=2)
    sums.update(torch.empty(0), torch.empty(0))
    assert [found.count for found in sums.compute()] == [0, 0]


def test_update_never_asks_the_device_for_a_value():
    """On the meta device any read of a value raises, as on a GPU it would wait."""
    sums = NoiseLevelSums(20, device="meta")
    sums.update(torch.empty(64, device="meta"), torch.empty(64, device="meta", requires_grad=True))
    with pytest.raises((NotImplementedError, RuntimeError)):
        sums.compute()


class GaussianVelocity(torch.nn.Module):
    """The optimal velocity of the linear path for data ~ N(0, c^2): linear in x."""

    def __init__(self, c):
        super().__init__()
        self.c = c

    def forward(self, x, t, label=None):
        t = expand(t, x)
        variance = (self.c * progress(t)) ** 2 + t**2
        return x * (t - self.c**2 * progress(t)) / variance


def test_the_loss_of_the_optimal_velocity_of_gaussian_data_is_its_closed_form():
    c, levels = 0.5, [0.02, 0.3, 0.9]
    found = loss_by_noise_level(GaussianVelocity(c), Linear(), c * torch.randn(3000, 1, 4, 4), levels, seed=0)
    for level in levels:
        variance = (c * progress(level)) ** 2 + level**2
        assert found[level].loss == pytest.approx(c**2 / variance, rel=0.03)  # Var(v* | xt)
        assert found[level].target_rms == pytest.approx((1 + c**2) ** 0.5, rel=0.03)
        rms = (level - c**2 * progress(level)) / variance**0.5
        assert found[level].velocity_rms == pytest.approx(abs(rms), rel=0.03)


def test_a_network_that_returns_the_target_has_no_error_and_ratio_one():
    class Target(torch.nn.Module):
        """Knows that all data is zero: then v* = xt / t."""

        def forward(self, x, t, label=None):
            return x / expand(t, x)

    found = loss_by_noise_level(Target(), Linear(), torch.zeros(10, 1, 4, 4), [0.5], seed=0)[0.5]
    assert found.loss == pytest.approx(0, abs=1e-10) and found.velocity_ratio == pytest.approx(1)


def test_each_image_meets_its_own_label():
    class ByLabel(torch.nn.Module):
        def forward(self, x, t, label):
            return x / expand(t, x) * expand(label.float(), x)

    labels = torch.tensor([0, 1, 2] * 100)
    found = loss_by_noise_level(ByLabel(), Linear(), torch.zeros(300, 1, 4, 4), [0.5], 0, labels=labels, batch_size=32)[
        0.5
    ]
    assert found.velocity_ratio == pytest.approx(1)  # the mean of 0, 1 and 2


def test_centres_lie_in_the_middle_of_the_bins():
    assert bin_centres(4) == [0.125, 0.375, 0.625, 0.875]
