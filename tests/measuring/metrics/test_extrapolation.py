from __future__ import annotations

import pytest
import torch

from flowexp.measuring.metrics import Moments, frechet_infinity, frechet_interval
from flowexp.measuring.metrics.extrapolation import _distance, _fit_line


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def standard(dim: int) -> Moments:
    return Moments(torch.zeros(dim, dtype=torch.float64), torch.eye(dim, dtype=torch.float64), 0)


def test_a_line_over_the_inverse_size_is_found_exactly():
    sizes = list(range(100, 1100, 100))
    line = _fit_line(sizes, [2.5 + 300 / size for size in sizes])
    assert line.value == pytest.approx(2.5) and line.slope == pytest.approx(300) and line.error < 1e-9


def test_the_intercepts_error_is_that_of_least_squares():
    sizes = list(range(50, 650, 50))
    draws = torch.randn(400, len(sizes), generator=seeded(), dtype=torch.float64) * 0.1
    lines = [_fit_line(sizes, [1 + 20 / s + float(e) for s, e in zip(sizes, row, strict=True)]) for row in draws]
    spread = torch.tensor([line.value for line in lines]).std()
    assert torch.tensor([line.error for line in lines]).mean() == pytest.approx(float(spread), rel=0.1)


def test_the_extrapolated_distance_is_nearer_to_the_truth_than_the_measured_one():
    features = torch.randn(2000, 30, generator=seeded())  # the reference's own distribution: the distance is 0
    line = frechet_infinity(features, standard(30), seeded(1), smallest=400)
    measured = line.distances[-1]
    assert line.sizes[0] == 400 and line.sizes[-1] == 2000 and len(line.sizes) == 15
    assert measured > 0.1 and abs(line.value) < measured / 4


def test_the_largest_size_is_all_samples_each_once():
    features = torch.randn(300, 4, generator=seeded())
    line = frechet_infinity(features, standard(4), seeded(1))
    assert line.distances[-1] == pytest.approx(_distance(features, torch.arange(300), standard(4), "cpu"), rel=1e-9)


def test_the_interval_is_as_wide_as_distances_of_new_samples_scatter():
    shifted = Moments(torch.full((3,), 0.7, dtype=torch.float64), torch.eye(3, dtype=torch.float64), 0)
    rows = torch.arange(400)
    new = [_distance(torch.randn(400, 3, generator=seeded(i)), rows, shifted, "cpu") for i in range(150)]
    expected = torch.tensor(new).quantile(torch.tensor([0.025, 0.975])).diff().item()
    found = frechet_interval(torch.randn(400, 3, generator=seeded(999)), shifted, seeded(1), num_resamples=200)
    assert found.high - found.low == pytest.approx(expected, rel=0.3)


def test_the_interval_holds_the_measured_distance_despite_the_bias_of_resampling():
    features = torch.randn(100, 20, generator=seeded())  # few samples of many dimensions: the bias is largest
    measured = _distance(features, torch.arange(100), standard(20), "cpu")
    found = frechet_interval(features, standard(20), seeded(1), num_resamples=50)
    assert found.low < measured < found.high


def test_too_few_samples_sizes_or_resamples_are_refused():
    few, reference = torch.randn(12, 2), standard(2)
    with pytest.raises(ValueError, match=r"got 12 samples: raise num_samples"):
        frechet_infinity(few, reference, seeded())
    with pytest.raises(ValueError, match="at least 10 sizes, got 9"):
        frechet_infinity(few, reference, seeded(), num_sizes=9)
    with pytest.raises(ValueError, match="at least 20 resamples"):
        frechet_interval(few, reference, seeded(), num_resamples=5)
