"""Options of diagnostics against loops: weights of levels, and the kind of a bootstrap interval."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from flowexp.flow.interpolants import Linear
from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.diagnostics import compare_samplers, gradient_share
from flowexp.measuring.diagnostics.noised import noised_batches
from flowexp.measuring.metrics import distance_of, moments_of

LEVELS, WEIGHTS = [0.2, 0.5, 0.9], [1.0, 3.0, 6.0]


class Affine(torch.nn.Module):
    """v = a x + b, so that gradients are short to write."""

    def __init__(self):
        super().__init__()
        self.scale, self.shift = (torch.nn.Parameter(torch.tensor(value)) for value in (0.3, -0.2))

    def forward(self, x, t, label=None):
        return self.scale * x + self.shift


def test_the_norm_of_a_batchs_gradient_bears_the_weight_of_its_level():
    network, images = Affine(), torch.randn(12, 1, 2, 2)
    curve = gradient_share(network, network.parameters(), Linear(), images, LEVELS, 0, WEIGHTS, batch_size=4)
    for point, weight in zip(curve, WEIGHTS, strict=True):
        squares = []
        for batch in noised_batches(images, point.t, 0, batch_size=4):
            xt = Linear().interpolate(batch.data, batch.noise, batch.t)
            off = network(xt, batch.t).detach() - (batch.noise - batch.data)
            squares.append(float((2 * off * xt).mean()) ** 2 + float((2 * off).mean()) ** 2)
        expected = weight / sum(WEIGHTS) * (sum(squares) / len(squares)) ** 0.5
        assert point.batch_norm == pytest.approx(expected, rel=1e-4)
        assert point.norm < point.batch_norm * 1.0001  # a mean of gradients is no longer than they are


@pytest.mark.parametrize("confidence", [0.95, 0.5])
def test_the_interval_of_a_paired_difference_is_the_basic_one(confidence):
    """2 d - quantiles: resamples lie on one side of d, and percentiles of them would too."""
    base = torch.randn(40, 3)
    features = {"plain": base, "other": base * 1.3 + 0.5}
    reference = moments_of(torch.randn(50, 3))
    found = {
        score.sampler: score
        for score in compare_samplers(features, reference, "plain", num_resamples=60, confidence=confidence, seed=4)
    }["other"]

    def difference(rows):
        return distance_of(reference, moments_of(features["other"][rows])) - distance_of(
            reference, moments_of(features["plain"][rows])
        )

    whole = difference(torch.arange(40))
    drawn = [difference(torch.randint(40, (40,), generator=keyed_generator(4, place))) for place in range(60)]
    low, high = np.quantile(drawn, [(1 + confidence) / 2, (1 - confidence) / 2])
    assert found.difference == pytest.approx(whole)
    assert (found.low, found.high) == pytest.approx((2 * whole - low, 2 * whole - high), rel=1e-6)
    assert found.better is (found.high < 0)
