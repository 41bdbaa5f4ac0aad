from __future__ import annotations

import math

import pytest
import scipy.linalg
import torch
from torchmetrics.image.fid import _compute_fid

from flowexp.measuring.metrics import FeatureMoments, Moments, distance_of, frechet_distance, moments


def random_features(num: int, dim: int, shift: float = 0.0) -> torch.Tensor:
    """Correlated features, their scales spread over two decades as those of a real network are."""
    mixing = torch.randn(dim, dim) * torch.logspace(-1, 1, dim)
    return torch.randn(num, dim) @ mixing / math.sqrt(dim) + shift


def moments_of(features: torch.Tensor) -> Moments:
    metric = FeatureMoments(features.shape[1])
    metric.update(features)
    return metric.compute()


def distance(a: Moments, b: Moments) -> float:
    return float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))


def test_moments_are_mean_and_covariance_whatever_the_batches():
    features = random_features(100, 6)
    metric = FeatureMoments(6)
    for batch in features.split(17):
        metric.update(batch)
    found = metric.compute()
    assert found.count == 100
    torch.testing.assert_close(found.mean, features.double().mean(0))
    torch.testing.assert_close(found.covariance, features.double().T.cov())


def test_distance_of_gaussians_with_diagonal_covariance_has_its_closed_form():
    a, b = torch.rand(5, dtype=torch.float64) + 0.1, torch.rand(5, dtype=torch.float64) + 0.1
    shift = torch.randn(5, dtype=torch.float64)
    expected = shift.square().sum() + (a.sqrt() - b.sqrt()).square().sum()
    torch.testing.assert_close(frechet_distance(torch.zeros_like(shift), a.diag(), shift, b.diag()), expected)


def test_distance_of_a_set_to_itself_is_zero():
    found = moments_of(random_features(500, 20))
    assert distance(found, found) < 1e-6


def test_distance_is_symmetric():
    a, b = moments_of(random_features(200, 10)), moments_of(random_features(200, 10, shift=0.3))
    assert distance(a, b) == pytest.approx(distance(b, a), rel=1e-9)


@pytest.mark.parametrize("num", [300, 30])
def test_distance_is_that_of_scipys_matrix_root_also_with_fewer_images_than_features(num):
    a, b = moments_of(random_features(num, 60)), moments_of(random_features(num, 60, shift=0.2))
    root = scipy.linalg.sqrtm((a.covariance @ b.covariance).numpy()).real
    trace = a.covariance.trace() + b.covariance.trace() - 2 * root.trace()
    expected = float((a.mean - b.mean).square().sum() + trace)
    assert distance(a, b) == pytest.approx(expected, rel=1e-4)


def test_distance_of_fewer_images_than_features_is_exact():
    """(cov1 cov2)^(1/2) has the trace of the singular values of A B^T, for A^T A = cov1 and B^T B = cov2."""
    a, b = random_features(20, 60).double(), random_features(30, 60, shift=0.2).double()
    one, other = ((features - features.mean(0)) / math.sqrt(len(features) - 1) for features in (a, b))
    trace = one.square().sum() + other.square().sum() - 2 * torch.linalg.svdvals(one @ other.T).sum()
    expected = float((a.mean(0) - b.mean(0)).square().sum() + trace)
    assert distance(moments_of(a), moments_of(b)) == pytest.approx(expected, rel=1e-10)


def test_distance_is_that_of_torchmetrics():
    a, b = moments_of(random_features(400, 48)), moments_of(random_features(300, 48, shift=0.1))
    expected = float(_compute_fid(a.mean, a.covariance, b.mean, b.covariance))
    assert distance(a, b) == pytest.approx(expected, rel=1e-6)


def test_features_that_never_vary_do_no_harm():
    a, b = random_features(300, 20), random_features(300, 20)
    without = distance(moments_of(a), moments_of(b))
    dead = torch.zeros(300, 5)
    assert distance(moments_of(torch.cat([a, dead], 1)), moments_of(torch.cat([b, dead], 1))) == pytest.approx(without)


def test_sums_of_two_processes_are_the_sums_of_one():
    reference, features = moments_of(random_features(200, 8)), random_features(101, 8, shift=0.2)
    whole, first, second = (FeatureMoments(8) for _ in range(3))
    whole.update(features)
    first.update(features[::2])
    second.update(features[1::2])
    for name in ("total", "outer", "count"):
        setattr(first, name, getattr(first, name) + getattr(second, name))  # what torchmetrics does when it syncs
    found, expected = (distance_of(reference, sums.compute()) for sums in (first, whole))
    assert found == pytest.approx(expected, rel=1e-6)  # of roots of eigenvalues


def test_moments_of_stored_features_are_those_of_a_stream_and_repeats_count(monkeypatch):
    monkeypatch.setattr(moments, "BATCH", 16)
    features, rows = random_features(50, 6), torch.randint(50, (70,))
    for found, expected in (
        (moments.moments_of(features), features),
        (moments.moments_of(features, rows), features[rows]),
    ):
        torch.testing.assert_close(found.mean, moments_of(expected).mean)
        torch.testing.assert_close(found.covariance, moments_of(expected).covariance)
        assert found.count == len(expected)


def test_features_of_two_networks_are_not_compared():
    with pytest.raises(ValueError, match="features of one length, got 4 and 5"):
        distance_of(moments_of(random_features(9, 4)), moments_of(random_features(9, 5)))


def test_one_image_is_too_few():
    metric = FeatureMoments(4)
    metric.update(torch.randn(1, 4))
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        metric.compute()


def test_samples_that_diverged_are_not_measured():
    metric = FeatureMoments(4)
    metric.update(torch.tensor([[1.0, 2, 3, 4], [1, math.nan, 3, 4], [0, 0, 1, 1]]))
    with pytest.raises(ValueError, match="NaN or infinite: the samples have diverged"):
        metric.compute()


def test_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 4\), got \(2, 5\)"):
        FeatureMoments(4).update(torch.zeros(2, 5))
