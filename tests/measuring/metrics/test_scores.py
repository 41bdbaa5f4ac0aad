"""A score is its metric of the samples against the reference, in that order, with the plan's options."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.metrics import (
    MetricPlan,
    Statistics,
    distance_of,
    frechet_infinity,
    frechet_interval,
    full_kernel_distance,
    kernel_distance,
    moments_of,
    nearest_neighbours,
    precision_recall,
    subset_of,
)

OPTIONS = {
    "k": 5, "pairwise_reference": 40, "kid_subsets": 7, "kid_subset_size": 20, "infinity_sizes": 11,
    "infinity_smallest": 13, "resamples": 21, "confidence": 0.6,
}  # fmt: skip
STREAMS = {"kid": 4, "frechet_infinity": 6, "frechet_interval": 7}


@pytest.fixture
def samples():
    """Of one of the reference's two modes."""
    return torch.randn(60, 3) * 0.5


@pytest.fixture
def reference():
    return torch.cat([torch.randn(40, 3), torch.randn(40, 3) + 20])


def scores(metric, samples, reference, seed=0, **options):
    def statistics(features):
        return Statistics({"features": moments_of(features)}, features)

    found = MetricPlan.of([metric], options).compute(statistics(samples), statistics(reference), seed)
    return found[metric]


def test_precision_is_of_the_samples_and_recall_of_the_reference(samples, reference):
    found = scores("precision_recall", samples, reference)
    assert found == precision_recall(samples, reference)._asdict()
    assert found["precision"] > 0.9 and found["recall"] < 0.6


@pytest.mark.parametrize("k", [1, 3, 10])
def test_precision_and_recall_take_k_neighbours(samples, reference, k):
    expected = precision_recall(samples, reference, k)._asdict()
    assert scores("precision_recall", samples, reference, k=k) == expected
    assert k == 3 or expected != precision_recall(samples, reference)._asdict()


def generator(metric, seed=3):
    return keyed_generator(seed, STREAMS[metric])


def precision_of_a_subset(samples, reference):
    return precision_recall(samples, subset_of(reference, 40), 5)._asdict()


def kid(samples, reference):
    mean, std = kernel_distance(samples, reference, generator("kid"), 7, 20)
    return {"kid": mean, "kid_std": std, "kid_full": full_kernel_distance(samples, subset_of(reference, 40))}


def infinity(samples, reference):
    line = frechet_infinity(samples, moments_of(reference), generator("frechet_infinity"), 11, 13)
    return {"frechet_infinity": line.value, "frechet_infinity_error": line.error}


def interval(samples, reference):
    found = frechet_interval(samples, moments_of(reference), generator("frechet_interval"), 21, 0.6)
    return {"frechet_low": found.low, "frechet_high": found.high}


def nearest(samples, reference):
    return {"nearest_neighbour": float(nearest_neighbours(samples, reference).distances.mean())}


EXPECTED = {
    "precision_recall": precision_of_a_subset,
    "kid": kid,
    "frechet_infinity": infinity,
    "frechet_interval": interval,
    "nearest_neighbour": nearest,
}


@pytest.mark.parametrize("metric", EXPECTED)
def test_a_score_is_its_function_with_all_options_of_the_plan(samples, reference, metric):
    found = scores(metric, samples, reference, seed=3, **OPTIONS)
    assert found == pytest.approx(EXPECTED[metric](samples, reference), rel=1e-9)
    assert metric == "nearest_neighbour" or found != scores(metric, samples, reference, seed=3, **SMALL)


SMALL = {"kid_subset_size": 10, "k": 2}


@pytest.mark.parametrize("option", ["resamples", "confidence", "infinity_sizes", "infinity_smallest", "kid_subsets"])
def test_each_option_changes_the_score_that_it_belongs_to(samples, reference, option):
    metric = {"r": "frechet_interval", "c": "frechet_interval", "i": "frechet_infinity", "k": "kid"}[option[0]]
    other = OPTIONS | {option: {"confidence": 0.9, "infinity_smallest": None}.get(option, OPTIONS[option] + 5)}
    assert scores(metric, samples, reference, **OPTIONS) != scores(metric, samples, reference, **other)


@pytest.mark.parametrize("metric", STREAMS)
def test_the_seed_decides_what_is_drawn(samples, reference, metric):
    assert scores(metric, samples, reference, 0, **OPTIONS) != scores(metric, samples, reference, 1, **OPTIONS)


@pytest.mark.parametrize(("num", "first"), [(200, 20), (1000, 100), (57, 5)])
def test_an_extrapolation_begins_at_a_tenth_of_the_samples_and_ends_at_all(num, first):
    sizes = frechet_infinity(torch.randn(num, 2), moments_of(torch.randn(50, 2)), keyed_generator(0)).sizes
    assert (sizes[0], sizes[-1], len(sizes)) == (first, num, 15)


def test_the_largest_size_is_of_each_sample_once(samples, reference):
    """Subsets are without repeats: the last one is all samples, and so the measured distance."""
    line = frechet_infinity(samples, moments_of(reference), keyed_generator(0))
    assert line.distances[-1] == pytest.approx(distance_of(moments_of(reference), moments_of(samples)))
