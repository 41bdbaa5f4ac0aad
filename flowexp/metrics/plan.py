"""Which scores are wanted, what they need of samples and reference, and their numbers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowexp.metrics.collecting import Needs, Statistics
from flowexp.metrics.extrapolation import check_interval, check_sizes, frechet_infinity, frechet_interval
from flowexp.metrics.frechet import distance_of
from flowexp.metrics.kernel import full_kernel_distance, kernel_distance
from flowexp.metrics.nearest_neighbour import nearest_neighbours
from flowexp.metrics.neighbours import Device
from flowexp.metrics.precision_recall import precision_recall
from flowexp.randomness import keyed_generator

# By metric: what it needs of the samples, and of the reference.
NEEDS: dict[str, tuple[Needs, Needs]] = {
    "frechet": (Needs(("features",)), Needs(("features",))),
    "sfid": (Needs(("spatial",)), Needs(("spatial",))),
    "inception_score": (Needs(logits=True), Needs()),
    "precision_recall": (Needs(features=True), Needs(features=True)),
    "kid": (Needs(features=True), Needs(features=True)),
    "nearest_neighbour": (Needs(features=True), Needs(features=True)),
    "frechet_infinity": (Needs(features=True), Needs(("features",))),
    "frechet_interval": (Needs(features=True), Needs(("features",))),
}


@dataclass(frozen=True)
class MetricPlan:
    """A choice of metrics with their options; one pass over samples and one over the reference serve all of them.

    Arguments:
        metrics: names, of `NEEDS`.
        split_size: images in one split of the Inception Score.
        k: neighbours of precision and recall.
        pairwise_reference: how many reference images precision, recall and the kernel distance over all pairs take: a
            fixed random subset where there are more; None takes all. ADM's files have 10,000. Precision depends on it.
        kid_subsets, kid_subset_size: of the kernel distance.
        infinity_sizes, infinity_smallest: see `frechet_infinity`.
        resamples, confidence: see `frechet_interval`.

    Raises:
        ValueError: no metric, one that is not known, or an option that no metric could work with.
    """

    metrics: Sequence[str]
    split_size: int = 5000
    k: int = 3
    pairwise_reference: int | None = 10_000
    kid_subsets: int = 100
    kid_subset_size: int = 1000
    infinity_sizes: int = 15
    infinity_smallest: int | None = None
    resamples: int = 100
    confidence: float = 0.95

    def __post_init__(self) -> None:
        unknown = sorted(set(self.metrics) - set(NEEDS))
        if unknown or not self.metrics:
            raise ValueError(f"metrics must be some of {', '.join(NEEDS)}, got {', '.join(unknown) or 'none'}")
        if min(self.k, self.kid_subsets, self.split_size) < 1 or self.kid_subset_size < 2:
            raise ValueError(
                "k, kid_subsets and split_size must be at least 1 and kid_subset_size 2, got "
                f"{self.k}, {self.kid_subsets}, {self.split_size} and {self.kid_subset_size}"
            )
        check_sizes(self.infinity_sizes)
        check_interval(self.resamples, self.confidence)

    @property
    def samples(self) -> Needs:
        """What one pass over the samples must leave."""
        return _join([NEEDS[name][0] for name in self.metrics])

    @property
    def reference(self) -> Needs:
        """What must be known of the reference."""
        return _join([NEEDS[name][1] for name in self.metrics])

    def check(self, num_samples: int, offered: Sequence[str], num_reference: int | None = None) -> None:
        """Refuses, before anything is sampled, what a metric would refuse after it.

        offered: the encoder's outputs. num_reference: images in the reference, where it is known already.

        Raises:
            ValueError: too few samples or reference images, or an output that the encoder does not offer.
        """
        for name in self.metrics:
            missing = sorted({*NEEDS[name][0].outputs} - {*offered})
            if missing:
                raise ValueError(f"{name} needs the output {missing[0]}, which only encoder=inception offers")
            self._check_number(name, num_samples, "samples: raise num_samples")
            if num_reference is not None and name in ("precision_recall", "kid"):
                self._check_number(name, num_reference, "reference images: take a larger reference")

    def _check_number(self, name: str, num: int, of: str) -> None:
        first = self.infinity_smallest or 0
        lowest = {
            "precision_recall": self.k + 1,
            "kid": self.kid_subset_size,
            "frechet_infinity": max(first, self.infinity_sizes) + self.infinity_sizes,
        }.get(name, 2)
        if num < lowest:
            raise ValueError(f"{name} needs at least {lowest}, got {num} {of}")

    def protocol(self) -> dict[str, Any]:
        """The options that decide the chosen metrics, by metric."""
        options: dict[str, dict[str, Any]] = {
            "inception_score": {"split_size": self.split_size, "shuffle": False},
            "precision_recall": {"k": self.k, "reference": self.pairwise_reference, "distances": "fp32"},
            "kid": {
                "subsets": self.kid_subsets,
                "subset_size": self.kid_subset_size,
                "reference": self.pairwise_reference,
            },
            "frechet_infinity": {"sizes": self.infinity_sizes, "smallest": self.infinity_smallest},
            "frechet_interval": {"resamples": self.resamples, "confidence": self.confidence},
        }
        return {name: options.get(name, {}) for name in self.metrics}

    def compute(
        self, samples: Statistics, reference: Statistics, seed: int = 0, device: Device = "cpu"
    ) -> dict[str, float]:
        """The numbers of all metrics by score; an encoder's `key` turns a score into its name. No process waits.

        seed: decides the random subsets, which are the same on every process.
        """
        found: dict[str, float] = {}
        for place, name in enumerate(NEEDS):
            if name in self.metrics:
                found |= _SCORES[name](_Work(self, samples, reference, seed, place, device))
        return found


@dataclass(frozen=True)
class _Work:
    """What one metric is computed from."""

    plan: MetricPlan
    samples: Statistics
    reference: Statistics
    seed: int
    place: int
    device: Device

    def generator(self) -> torch.Generator:
        """The same stream for a metric whatever other metrics are chosen."""
        return keyed_generator(self.seed, self.place)

    def distance(self, output: str) -> float:
        return distance_of(self.reference.moments[output].to(self.device), self.samples.moments[output])

    def features(self) -> tuple[Tensor, Tensor]:
        assert self.samples.features is not None and self.reference.features is not None  # as `Needs` asked
        return self.samples.features, self.reference.features


def _join(needs: Sequence[Needs]) -> Needs:
    moments = tuple(dict.fromkeys(name for need in needs for name in need.moments))
    return Needs(moments, any(need.features for need in needs), any(need.logits for need in needs))


def subset_of(features: Tensor, num: int | None) -> Tensor:
    """A fixed random subset of `num` of features (N, D), in their order; all where there are no more, or for None."""
    if num is None or len(features) <= num:
        return features
    return features[torch.randperm(len(features), generator=keyed_generator(len(features)))[:num].sort().values]


def _frechet(work: _Work) -> dict[str, float]:
    return {"frechet": work.distance("features")}


def _sfid(work: _Work) -> dict[str, float]:
    return {"sfid": work.distance("spatial")}


def _inception_score(work: _Work) -> dict[str, float]:
    assert work.samples.inception is not None
    return {"inception_score": work.samples.inception.mean, "inception_score_std": work.samples.inception.std}


def _precision_recall(work: _Work) -> dict[str, float]:
    samples, reference = work.features()
    chosen = subset_of(reference, work.plan.pairwise_reference)
    return precision_recall(samples, chosen, work.plan.k, work.device)._asdict()


def _kid(work: _Work) -> dict[str, float]:
    (samples, reference), plan = work.features(), work.plan
    mean, std = kernel_distance(
        samples, reference, work.generator(), plan.kid_subsets, plan.kid_subset_size, work.device
    )
    full = full_kernel_distance(samples, subset_of(reference, plan.pairwise_reference), work.device)
    return {"kid": mean, "kid_std": std, "kid_full": full}


def _nearest_neighbour(work: _Work) -> dict[str, float]:
    return {"nearest_neighbour": float(nearest_neighbours(*work.features(), work.device).distances.mean())}


def _frechet_infinity(work: _Work) -> dict[str, float]:
    assert work.samples.features is not None
    plan, reference = work.plan, work.reference.moments["features"]
    line = frechet_infinity(
        work.samples.features, reference, work.generator(), plan.infinity_sizes, plan.infinity_smallest, work.device
    )
    return {"frechet_infinity": line.value, "frechet_infinity_error": line.error}


def _frechet_interval(work: _Work) -> dict[str, float]:
    assert work.samples.features is not None
    plan, reference = work.plan, work.reference.moments["features"]
    found = frechet_interval(
        work.samples.features, reference, work.generator(), plan.resamples, plan.confidence, work.device
    )
    return {"frechet_low": found.low, "frechet_high": found.high}


_SCORES: dict[str, Callable[[_Work], dict[str, float]]] = {
    "frechet": _frechet,
    "sfid": _sfid,
    "inception_score": _inception_score,
    "precision_recall": _precision_recall,
    "kid": _kid,
    "nearest_neighbour": _nearest_neighbour,
    "frechet_infinity": _frechet_infinity,
    "frechet_interval": _frechet_interval,
}
