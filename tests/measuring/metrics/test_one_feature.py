"""Features of length 1 are features: moments keep their shapes, and distances are those of two normal laws."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.flow.time import expand, progress
from flowexp.measuring.diagnostics import integration_lag
from flowexp.measuring.metrics import FeatureMoments, distance_of, moments_of


@pytest.mark.parametrize("dim", [1, 2])
def test_moments_have_the_shape_of_the_features(dim):
    features = torch.randn(5, dim)
    moments = FeatureMoments(dim)
    moments.update(features)
    for found in (moments.compute(), moments.compute(), moments_of(features)):  # the second time from its cache
        assert found.mean.shape == (dim,) and found.covariance.shape == (dim, dim) and found.count == 5
        torch.testing.assert_close(found.mean, features.double().mean(0))
        torch.testing.assert_close(found.covariance, torch.cov(features.double().T).reshape(dim, dim))


def test_the_distance_of_one_number_is_that_of_two_normal_laws():
    first, second = torch.randn(50, 1), 2 * torch.randn(40, 1) + 1
    (m, s), (n, r) = ((float(x.double().mean()), float(x.double().std())) for x in (first, second))
    expected = (m - n) ** 2 + (s - r) ** 2
    assert distance_of(moments_of(first), moments_of(second)) == pytest.approx(expected)


class Gaussian:
    """The exact field of data N(0, 1): x_t stays normal, and v = (sigma - alpha) / (alpha^2 + sigma^2) x."""

    def __call__(self, x, t, label=None):
        return expand((t - progress(t)) / (progress(t) ** 2 + t**2), x) * x

    def null_condition(self, label):
        return None


@pytest.mark.parametrize("shape", [(1, 1, 1), (1, 2, 2)])
def test_a_lag_is_read_in_one_dimension(shape):
    images = torch.randn(400, *shape)
    curve = integration_lag(Sampler("euler", 8), Gaussian(), Linear(), images, 100, 0, max_dim=1, num_levels=3)
    assert len(curve) == 3 and all(abs(point.lag) <= 0.25 and point.lag_se > 0 for point in curve)
