from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowexp.measuring.metrics import (
    METRICS,
    MetricPlan,
    Needs,
    Statistics,
    frechet_distance,
    metrics_for,
    moments_of,
    subset_of,
)

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from metric_processes import ALL, DIMS, OPTIONS, collect, measure, outputs


def test_one_pass_gives_every_score():
    found = ALL.compute(collect(100, 1, ALL.samples), collect(90, 0, ALL.reference))
    assert [*found] == [*METRICS]
    scores = {name: value for scores in found.values() for name, value in scores.items()}
    assert set(scores) == {
        *("frechet", "sfid", "inception_score", "inception_score_std", "precision", "recall", "kid", "kid_std"),
        *("kid_full", "nearest_neighbour", "frechet_infinity", "frechet_infinity_error", "frechet_low", "frechet_high"),
    }
    for name, output in (("frechet", "features"), ("sfid", "spatial")):
        a, b = moments_of(outputs(100, 1)[output]), moments_of(outputs(90, 0)[output])
        expected = float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
        assert scores[name] == pytest.approx(expected, rel=1e-9)
    assert scores["frechet_low"] < scores["frechet"] < scores["frechet_high"]


def test_a_distance_alone_needs_no_stored_features_and_no_other_output():
    plan = MetricPlan(("frechet",))
    assert plan.samples == plan.reference == Needs(("features",))
    assert MetricPlan(("inception_score",)).reference == Needs()
    assert MetricPlan(("kid", "sfid")).samples.outputs == ("spatial", "features")


def test_what_a_file_knows_already_needs_no_pass():
    needs = ALL.reference.without({"features": moments_of(torch.randn(5, 2)), "spatial": moments_of(torch.randn(5, 2))})
    assert needs == Needs((), features=True)


def test_the_same_seed_gives_the_same_numbers_whatever_else_is_measured():
    samples, reference = collect(100, 1, ALL.samples), collect(90, 0, ALL.reference)
    alone = MetricPlan(("kid", "frechet_interval"), **OPTIONS)
    scores = ALL.compute(samples, reference, seed=4)
    for name, value in alone.compute(samples, reference, seed=4).items():
        assert scores[name] == value
    assert alone.compute(samples, reference, seed=5)["kid"] != scores["kid"]


def test_a_subset_of_the_reference_is_fixed_and_not_just_its_first_classes():
    features = torch.arange(100.0)[:, None]
    chosen = subset_of(features, 10)
    assert torch.equal(chosen, subset_of(features, 10)) and len(chosen.unique()) == 10 and chosen.max() > 50
    assert subset_of(features, None) is features and subset_of(features, 100) is features


@pytest.mark.parametrize(
    "name, num_samples, sentence",
    [
        ("kid", 999, r"at least 1000, got 999 samples: raise num_samples, or lower options\.kid_subset_size$"),
        ("frechet", 1, "frechet needs at least 2, got 1 samples: raise num_samples$"),
        ("precision_recall", 3, "at least 4, got 3"),
        ("frechet_infinity", 20, "at least 30, got 20"),
        ("sfid", 50, "sfid needs the output spatial, which only encoder=inception offers"),
        ("inception_score", 50, "needs the output logits"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_sampling(name, num_samples, sentence):
    with pytest.raises(ValueError, match=sentence):
        MetricPlan((name,)).check(num_samples, ("features",))


@pytest.mark.parametrize(
    "name, num, sentence",
    [
        ("kid", 500, "kid needs at least 1000, got 500 reference images: take a larger reference"),
        ("precision_recall", 3, "at least 4, got 3 reference images"),
        ("frechet", 1, "frechet needs at least 2, got 1 reference images"),
        ("frechet_infinity", 1, "at least 2, got 1 reference"),
    ],
)
def test_a_reference_that_is_too_small_is_refused_before_it_is_encoded(name, num, sentence):
    with pytest.raises(ValueError, match=sentence):
        MetricPlan((name,)).check_reference(num)


def test_a_reference_that_nobody_asks_for_may_be_of_any_size():
    MetricPlan(("inception_score",)).check_reference(1)
    MetricPlan(("nearest_neighbour",)).check_reference(1)


def test_all_means_all_that_the_outputs_allow():
    assert set(metrics_for(("features",))) == {*METRICS} - {"sfid", "inception_score"}
    assert metrics_for(tuple(DIMS)) == tuple(METRICS)


def test_what_passes_the_check_can_be_measured():
    plan = MetricPlan(tuple(METRICS), **OPTIONS)
    plan.check(30, tuple(DIMS))
    plan.check_reference(30)
    assert plan.compute(collect(30, 1, plan.samples), collect(30, 0, plan.reference))


def test_unknown_metrics_and_impossible_options_are_refused():
    with pytest.raises(ValueError, match=r"metrics must be some of frechet, sfid, .*, got fid"):
        MetricPlan(("fid",))
    with pytest.raises(ValueError, match="got none"):
        MetricPlan(())
    for options in (
        {"k": 0},
        {"kid_subset_size": 1},
        {"infinity_sizes": 9},
        {"confidence": 1.0},
        {"pairwise_reference": 3},
    ):
        with pytest.raises(ValueError):
            MetricPlan(("frechet",), **options)


@pytest.mark.parametrize(
    "options, sentence",
    [
        ({"foo": 3, "k": 5}, "options of metrics are split_size, k, .*; got foo"),
        ({"k": "three"}, "k must be a whole number, got 'three'"),
        ({"k": 2.5}, r"k must be a whole number, got 2\.5"),
        ({"resamples": None}, "resamples must be a whole number, got None"),
        ({"confidence": "high"}, r"a confidence in \(0, 1\), got 100, high"),
    ],
)
def test_options_of_another_name_or_kind_are_answered_by_a_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        MetricPlan.of(("frechet",), options)


def test_options_may_say_that_there_is_no_limit():
    assert MetricPlan.of(("frechet",), {"pairwise_reference": None, "k": 4}) == MetricPlan(
        ("frechet",), k=4, pairwise_reference=None
    )


def test_a_distance_of_no_more_images_than_dimensions_is_cautioned_against():
    def cautions(names, num_samples, num_reference):
        plan = MetricPlan(names)
        return plan.cautions(num_samples, collect(num_reference, 0, plan.reference))

    both = ("frechet", "sfid", "precision_recall")  # of 12 and of 9 dimensions
    assert cautions(both, 13, 13) == []
    (sentence,) = cautions(both, 12, 13)
    assert "from 12 samples in 12 dimensions (features)" in sentence
    assert all("from 9 samples and 5 reference images in" in one for one in cautions(both, 9, 5))
    assert len(cautions(both, 9, 5)) == 2
    assert cautions(("precision_recall", "nearest_neighbour"), 2, 2) == []
    assert len(cautions(("frechet_interval",), 12, 99)) == 1


def test_moments_of_a_file_that_does_not_say_its_number_are_not_cautioned_against():
    plan = MetricPlan(("frechet",))
    unknown = Statistics({"features": moments_of(torch.randn(5, 12))._replace(count=0)})
    assert plan.cautions(13, unknown) == []


def test_the_protocol_names_the_options_of_the_chosen_metrics_only():
    assert MetricPlan(("frechet", "precision_recall")).protocol() == {
        "frechet": {},
        "precision_recall": {"k": 3, "reference": 10_000, "distances": "fp32"},
    }


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="needs gloo")
@pytest.mark.usefixtures("warm_processes")
def test_two_processes_measure_what_one_does(tmp_path):
    measure(0, 1, tmp_path)
    mp.spawn(measure, (2, tmp_path), nprocs=2)
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1_0", "2_0", "2_1"))
    assert len(alone) == 14
    assert first == pytest.approx(alone, rel=1e-6) and second == first
