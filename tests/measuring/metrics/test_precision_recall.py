from __future__ import annotations

import pytest
import torch
from torch_fidelity.metric_prc import prc_features_to_metric

from flowexp.measuring.metrics import neighbours, precision_recall
from flowexp.measuring.metrics.precision_recall import squared_radii


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    """Several blocks, and a last one that is smaller, in sets of a few dozen."""
    monkeypatch.setattr(neighbours, "ROWS", 16)
    monkeypatch.setattr(neighbours, "COLUMNS", 24)


def share_inside(points: torch.Tensor, manifold: torch.Tensor, k: int) -> float:
    """Kynkaanniemi et al., eqs. 1 and 2, one point at a time in float64."""
    points, manifold = points.double(), manifold.double()
    radii = [sorted((a - b).norm().item() for b in manifold)[k] for a in manifold]
    inside = [any((p - m).norm() <= r for m, r in zip(manifold, radii, strict=True)) for p in points]
    return sum(inside) / len(inside)


@pytest.mark.parametrize("k", [1, 3])
def test_shares_are_those_of_the_papers_equations(k):
    samples, reference = torch.randn(50, 3) * 0.7 + 0.6, torch.randn(61, 3)
    found = precision_recall(samples, reference, k)
    assert found.precision == share_inside(samples, reference, k)
    assert found.recall == share_inside(reference, samples, k)
    assert 0 < found.recall < found.precision < 1


def test_shares_are_those_of_torch_fidelity():
    samples, reference = torch.rand(300, 16) * 0.8, torch.rand(250, 16)
    options = {"prc_neighborhood": 3, "prc_batch_size": 100, "save_cpu_ram": True, "verbose": False}
    theirs = prc_features_to_metric(samples, reference, **options)
    found = precision_recall(samples, reference)
    assert found.precision == pytest.approx(theirs["precision"], rel=1e-4)
    assert found.recall == pytest.approx(theirs["recall"], rel=1e-4)


def test_a_radius_is_the_fourth_smallest_distance_with_itself():
    line = torch.tensor([[0.0], [1.0], [3.0], [7.0], [15.0]])
    torch.testing.assert_close(squared_radii(line), torch.tensor([49.0, 36.0, 16.0, 49.0, 196.0]))


@pytest.mark.parametrize("scale", [1.0, 0.1, 3.7])
@pytest.mark.parametrize("k", [1, 3])
def test_exact_ties_lie_on_the_rim_and_so_inside(k, scale):
    """Features of few values: most distances are equal to a radius, whatever the point that they are centred at."""
    samples, reference = torch.randint(0, 2, (60, 6)), torch.randint(0, 3, (70, 6))
    found = precision_recall(samples * scale, reference * scale, k)
    assert found.precision == share_inside(samples, reference, k)
    assert found.recall == share_inside(reference, samples, k)


def test_copies_of_one_image_lie_on_each_others_rim():
    """Radii and distances of exactly 0: the rim is all that there is."""
    assert precision_recall(torch.zeros(9, 3), torch.zeros(8, 3)) == (1, 1)


def test_a_rim_stays_one_beside_an_image_far_away():
    samples, reference = torch.randn(50, 3) * 0.7 + 0.6, torch.randn(61, 3)
    far = torch.cat([reference, torch.full((1, 3), 1e3)])
    assert precision_recall(samples, far, 1).precision == share_inside(samples, far, 1)


def test_a_set_against_itself_is_all_inside():
    features = torch.randn(40, 5)
    assert precision_recall(features, features) == (1, 1)


def test_sets_far_apart_share_nothing():
    assert precision_recall(torch.randn(20, 5), torch.randn(20, 5) + 100) == (0, 0)


def test_samples_of_one_mode_are_precise_and_recall_that_mode_only():
    left, right = torch.randn(200, 2), torch.randn(200, 2) + 50
    found = precision_recall(torch.randn(200, 2) * 0.5, torch.cat([left, right]))
    assert found.precision > 0.95 and found.recall < 0.5


def test_as_many_images_as_neighbours_are_too_few():
    with pytest.raises(ValueError, match="more than 3 images in each set, got 3"):
        precision_recall(torch.randn(3, 2), torch.randn(9, 2))


def test_features_of_two_networks_are_refused():
    with pytest.raises(ValueError, match="from the same encoder"):
        precision_recall(torch.randn(9, 2), torch.randn(9, 3))
