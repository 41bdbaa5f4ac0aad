from __future__ import annotations

import pytest
import torch
from torch_fidelity.metric_kid import kid_features_to_metric
from torchmetrics.image.kid import KernelInceptionDistance, poly_mmd

from flowexp.measuring.metrics import full_kernel_distance, kernel, kernel_distance


class Identity(torch.nn.Module):
    def forward(self, features):
        return features


@pytest.fixture
def features():
    return torch.rand(120, 16) + 0.3, torch.rand(150, 16)


def seeded() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_mean_and_spread_over_subsets_are_those_of_torchmetrics(features):
    samples, reference = features
    theirs = KernelInceptionDistance(Identity(), subsets=10, subset_size=50)
    theirs.update(reference, real=True)
    theirs.update(samples, real=False)
    torch.manual_seed(3)  # the stream of `seeded`
    mean, std = theirs.compute()
    found = kernel_distance(samples, reference, seeded(), subsets=10, subset_size=50)
    assert found.mean == pytest.approx(float(mean), rel=1e-4) and found.std == pytest.approx(float(std), rel=1e-3)


def test_a_subset_that_is_the_whole_set_gives_torch_fidelitys_number(features):
    samples, reference = features[0].double(), features[1][:120].double()
    options = {"kid_subsets": 1, "kid_subset_size": 120, "kid_kernel": "poly", "kid_kernel_poly_degree": 3}
    options |= {"kid_kernel_poly_gamma": None, "kid_kernel_poly_coef0": 1.0, "rng_seed": 0, "verbose": False}
    theirs = kid_features_to_metric(samples, reference, **options)["kernel_inception_distance_mean"]
    assert kernel_distance(samples, reference, seeded(), 1, 120).mean == pytest.approx(theirs, rel=1e-6)
    assert full_kernel_distance(samples, reference) == pytest.approx(theirs, rel=1e-6)


def test_all_pairs_are_summed_block_by_block_for_sets_of_two_sizes(features, monkeypatch):
    monkeypatch.setattr(kernel, "BLOCK", 32)
    samples, reference = (found.double() for found in features)
    n, m = len(samples), len(reference)
    within, within_reference, between = (
        (a @ b.T / 16 + 1) ** 3 for a, b in ((samples, samples), (reference, reference), (samples, reference))
    )
    expected = (within.sum() - within.trace()) / (n * (n - 1)) - 2 * between.mean()
    expected += (within_reference.sum() - within_reference.trace()) / (m * (m - 1))
    assert full_kernel_distance(*features) == pytest.approx(float(expected), rel=1e-5)


def test_the_estimate_is_unbiased_so_equal_distributions_fall_on_both_sides_of_zero():
    found = [full_kernel_distance(torch.randn(40, 8), torch.randn(40, 8)) for _ in range(60)]
    mean, error = torch.tensor(found).mean(), torch.tensor(found).std() / 60**0.5
    assert abs(mean) < 3 * error and min(found) < 0 < max(found)


def test_small_distances_of_many_features_are_not_lost_to_rounding():
    samples, reference = torch.rand(100, 2048) + 0.001, torch.rand(100, 2048)
    exact = float(poly_mmd(reference.double(), samples.double()))
    assert kernel_distance(samples, reference, seeded(), 1, 100).mean == pytest.approx(exact, rel=1e-9)


def test_sets_smaller_than_a_subset_are_refused(features):
    with pytest.raises(ValueError, match=r"120 samples and 150 reference images: lower kid_subset_size"):
        kernel_distance(*features, seeded())
    with pytest.raises(ValueError, match="at least 2 images in each set, got 1"):
        full_kernel_distance(features[0][:1], features[1])
