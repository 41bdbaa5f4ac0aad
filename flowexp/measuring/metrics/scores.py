"""The metrics that flowexp has: what each needs, what decides it, and its scores by name."""

from __future__ import annotations

import torch
from torch import Tensor

from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.metrics.collecting import Needs
from flowexp.measuring.metrics.extrapolation import frechet_infinity, frechet_interval
from flowexp.measuring.metrics.kernel import full_kernel_distance, kernel_distance
from flowexp.measuring.metrics.nearest_neighbour import nearest_neighbours
from flowexp.measuring.metrics.precision_recall import precision_recall
from flowexp.measuring.metrics.registry import Work, metric

MOMENTS, FEATURES = Needs(("features",)), Needs(features=True)


def subset_of(features: Tensor, num: int | None) -> Tensor:
    """A fixed random subset of `num` of features (N, D), in their order; all where there are no more, or for None."""
    if num is None or len(features) <= num:
        return features
    return features[torch.randperm(len(features), generator=keyed_generator(len(features)))[:num].sort().values]


@metric("frechet", MOMENTS, MOMENTS, stream=0, gives=("frechet",))
def _frechet(work: Work) -> dict[str, float]:
    return {"frechet": work.distance("features")}


@metric("sfid", Needs(("spatial",)), Needs(("spatial",)), stream=1, gives=("sfid",))
def _sfid(work: Work) -> dict[str, float]:
    return {"sfid": work.distance("spatial")}


@metric(
    "inception_score",
    Needs(logits=True),
    options=lambda plan: {"split_size": plan.split_size, "shuffle": False},
    stream=2,
    gives=("inception_score", "inception_score_std"),
)
def _inception_score(work: Work) -> dict[str, float]:
    assert work.samples.inception is not None  # as `Needs` declares
    return {"inception_score": work.samples.inception.mean, "inception_score_std": work.samples.inception.std}


@metric(
    "precision_recall",
    FEATURES,
    FEATURES,
    options=lambda plan: {"k": plan.k, "reference": plan.pairwise_reference, "distances": "fp32"},
    fewest=lambda plan: plan.k + 1,
    stream=3,
    gives=("precision", "recall"),
    lowered_by="k",
)
def _precision_recall(work: Work) -> dict[str, float]:
    samples, reference = work.features()
    chosen = subset_of(reference, work.plan.pairwise_reference)
    return precision_recall(samples, chosen, work.plan.k, work.device)._asdict()


@metric(
    "kid",
    FEATURES,
    FEATURES,
    options=lambda plan: {
        "subsets": plan.kid_subsets,
        "subset_size": plan.kid_subset_size,
        "reference": plan.pairwise_reference,
    },
    fewest=lambda plan: plan.kid_subset_size,
    stream=4,
    gives=("kid", "kid_std", "kid_full"),
    lowered_by="kid_subset_size",
)
def _kid(work: Work) -> dict[str, float]:
    (samples, reference), plan = work.features(), work.plan
    mean, std = kernel_distance(
        samples, reference, work.generator(), plan.kid_subsets, plan.kid_subset_size, work.device
    )
    full = full_kernel_distance(samples, subset_of(reference, plan.pairwise_reference), work.device)
    return {"kid": mean, "kid_std": std, "kid_full": full}


@metric("nearest_neighbour", FEATURES, FEATURES, fewest=lambda plan: 1, stream=5, gives=("nearest_neighbour",))
def _nearest_neighbour(work: Work) -> dict[str, float]:
    return {"nearest_neighbour": float(nearest_neighbours(*work.features(), work.device).distances.mean())}


@metric(
    "frechet_infinity",
    FEATURES,
    MOMENTS,
    options=lambda plan: {"sizes": plan.infinity_sizes, "smallest": plan.infinity_smallest},
    fewest=lambda plan: max(plan.infinity_smallest or 0, plan.infinity_sizes) + plan.infinity_sizes,
    stream=6,
    gives=("frechet_infinity", "frechet_infinity_error"),
)
def _frechet_infinity(work: Work) -> dict[str, float]:
    plan, reference = work.plan, work.reference.moments["features"]
    line = frechet_infinity(
        work.sampled(), reference, work.generator(), plan.infinity_sizes, plan.infinity_smallest, work.device
    )
    return {"frechet_infinity": line.value, "frechet_infinity_error": line.error}


@metric(
    "frechet_interval",
    FEATURES,
    MOMENTS,
    options=lambda plan: {"resamples": plan.resamples, "confidence": plan.confidence},
    stream=7,
    gives=("frechet_low", "frechet_high"),
)
def _frechet_interval(work: Work) -> dict[str, float]:
    plan, reference = work.plan, work.reference.moments["features"]
    found = frechet_interval(work.sampled(), reference, work.generator(), plan.resamples, plan.confidence, work.device)
    return {"frechet_low": found.low, "frechet_high": found.high}
