from __future__ import annotations

import pytest
import torch

from flowexp.data import to_float
from flowexp.flow.interpolants import Linear
from flowexp.measuring.diagnostics import gradient_share
from flowexp.measuring.diagnostics.noised import noised_batches

LEVELS = [0.02, 0.3, 0.8]


class Multiple(torch.nn.Module):
    """v = w x: the gradient of its mean squared error has a closed form."""

    def __init__(self, w=0.7):
        super().__init__()
        self.w = torch.nn.Parameter(torch.tensor(w))
        self.unused = torch.nn.Parameter(torch.zeros(3))

    def forward(self, x, t, label=None):
        return self.w * x if label is None else self.w * x * label.reshape(-1, 1, 1, 1)


def test_the_gradient_for_gaussian_data_has_its_closed_form():
    c, network = 0.5, Multiple(0.7)
    curve = gradient_share(network, network.parameters(), Linear(), c * torch.randn(4000, 1, 4, 4), LEVELS, seed=0)
    expected = []
    for t in LEVELS:
        variance, with_target = ((1.0 - t) * c) ** 2 + t**2, t - (1.0 - t) * c**2
        expected.append(2 * (0.7 * variance - with_target) / 3)
    assert curve.values("norm") == pytest.approx([abs(g) for g in expected], rel=0.05, abs=0.005)
    assert curve.values("share") == pytest.approx([abs(g) / sum(map(abs, expected)) for g in expected], abs=0.03)
    assert curve.values("along") == pytest.approx([g / sum(expected) for g in expected], rel=0.05, abs=0.02)


def test_shares_and_parts_sum_to_one_and_follow_the_weights():
    network, images = Multiple(), torch.randint(0, 256, (40, 1, 4, 4), dtype=torch.uint8)
    even, uneven = (
        gradient_share(
            network, network.parameters(), Linear(), images, LEVELS, 0, weights, batch_size=16, prepare=to_float
        )
        for weights in (None, [3.0, 3.0, 0.0])
    )
    for curve in (even, uneven):
        assert sum(curve.values("share")) == pytest.approx(1) and sum(curve.values("along")) == pytest.approx(1)
    assert uneven.values("share")[2] == 0
    assert uneven.values("norm")[0] == pytest.approx(1.5 * even.values("norm")[0])


def test_the_gradient_is_that_of_the_mean_error_whatever_the_batches():
    torch.manual_seed(3)
    network, images, labels = torch.nn.Conv2d(1, 1, 3, padding=1), torch.randn(30, 1, 5, 5), torch.rand(30)

    def field(x, t, label):
        return network(x) * label[:, None, None, None] + t[:, None, None, None]

    batch = next(noised_batches(images, 0.3, 0, 30, labels=labels))
    target = Linear().velocity(batch.data, batch.noise, batch.t)
    xt = Linear().interpolate(batch.data, batch.noise, batch.t)
    loss = (field(xt, batch.t, labels) - target).square().mean()
    gradient = torch.autograd.grad(loss, list(network.parameters()))
    for size in (30, 7):
        with torch.no_grad():  # a measurement runs without gradient, and this one needs its own
            curve = gradient_share(
                field, network.parameters(), Linear(), images, [0.3], 0, labels=labels, batch_size=size
            )
            point = curve.data_end
        assert point.loss == pytest.approx(loss.item(), rel=1e-5)
        assert point.norm == pytest.approx(float(torch.cat([g.flatten() for g in gradient]).norm()), rel=1e-4)
        assert point.batch_norm >= point.norm * (1 - 1e-5)
    assert all(parameter.grad is None for parameter in network.parameters())


def test_a_level_that_fights_the_others_has_a_negative_part():
    """Between the best w of two levels each pulls its own way; the stronger one wins."""
    network = Multiple(0.0)
    images = torch.randn(500, 1, 4, 4)
    curve = gradient_share(network, network.parameters(), Linear(), images, [0.2, 0.95], seed=0)
    assert min(curve.values("along")) < 0 < min(curve.values("share"))


def test_weights_are_one_for_each_level():
    network = Multiple()
    with pytest.raises(ValueError, match="weights must be 3 numbers"):
        gradient_share(network, network.parameters(), Linear(), torch.zeros(2, 1, 2, 2), LEVELS, 0, weights=[1.0])
