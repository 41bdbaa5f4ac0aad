"""Which scores are wanted, what they need of samples and reference, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from flowexp.metrics.collecting import Needs, Statistics
from flowexp.metrics.extrapolation import check_interval, check_sizes
from flowexp.metrics.neighbours import Device
from flowexp.metrics.registry import METRICS, RegisteredMetric, Work, find_metric

MAY_BE_NULL = ("pairwise_reference", "infinity_smallest")
COUNTS = ("split_size", "k", "kid_subsets", "kid_subset_size", "infinity_sizes", "resamples", *MAY_BE_NULL)


@dataclass(frozen=True)
class MetricPlan:
    """A choice of metrics with their options; one pass over samples and one over the reference serve all of them.

    Arguments:
        metrics: names, of `METRICS`; `file.name` for one's own, see `flowexp.metrics.registry`.
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

    @classmethod
    def of(cls, metrics: Sequence[str], options: Mapping[str, Any]) -> MetricPlan:
        """The plan with options by name, as a config gives them.

        Raises:
            ValueError: as for the plan, or an option that there is not.
        """
        known = [field.name for field in fields(cls) if field.name != "metrics"]
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"options of metrics are {', '.join(known)}; got {', '.join(unknown)}")
        return cls(metrics, **options)

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError(f"metrics must be some of {', '.join(METRICS)}, got none")
        for name in COUNTS:
            self._check_count(name, getattr(self, name))
        object.__setattr__(self, "metrics", tuple(find_metric(name).name for name in self.metrics))
        if min(self.k, self.kid_subsets, self.split_size) < 1 or self.kid_subset_size < 2:
            raise ValueError(
                "k, kid_subsets and split_size must be at least 1 and kid_subset_size 2, got "
                f"{self.k}, {self.kid_subsets}, {self.split_size} and {self.kid_subset_size}"
            )
        if self.pairwise_reference is not None and self.pairwise_reference <= self.k:
            raise ValueError(
                f"pairwise_reference must be above k = {self.k} neighbours, or null for all; got "
                f"{self.pairwise_reference}"
            )
        check_sizes(self.infinity_sizes)
        check_interval(self.resamples, self.confidence)

    def _check_count(self, name: str, value: Any) -> None:
        if value is None and name in MAY_BE_NULL:
            return
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"{name} must be a whole number, got {value!r}")

    @property
    def chosen(self) -> list[RegisteredMetric]:
        """The metrics, those of flowexp in its own order."""
        wanted = set(self.metrics)
        return [metric for name, metric in METRICS.items() if name in wanted]

    @property
    def samples(self) -> Needs:
        """What one pass over the samples must leave."""
        return _join([metric.samples for metric in self.chosen])

    @property
    def reference(self) -> Needs:
        """What must be known of the reference."""
        return _join([metric.reference for metric in self.chosen])

    def check(self, num_samples: int, offered: Sequence[str]) -> None:
        """Refuses, before anything is sampled, what a metric would refuse after it.

        offered: the encoder's outputs.

        Raises:
            ValueError: too few samples, or an output that the encoder does not offer.
        """
        for metric in self.chosen:
            missing = sorted({*metric.samples.outputs} - {*offered})
            if missing:
                raise ValueError(f"{metric.name} needs the output {missing[0]}, which only encoder=inception offers")
            self._check_number(metric, max(2, metric.fewest(self)), num_samples, "samples: raise num_samples")

    def check_reference(self, num: int) -> None:
        """The same for the reference, of which `num` images are to be encoded.

        Raises:
            ValueError: too few images.
        """
        for metric in self.chosen:
            needs = metric.reference
            fewest = max(metric.fewest(self) if needs.features else 1, 2 if needs.moments else 1)
            self._check_number(metric, fewest, num, "reference images: take a larger reference")

    def cautions(self, num_samples: int, reference: Statistics) -> list[str]:
        """What speaks against the Frechet distances of so few images: a sentence for each output, or none."""
        found = []
        for output in self.reference.moments:
            moments = reference.moments[output]  # a count of 0 is one that a file does not say
            sets = ((num_samples, "samples"), (moments.count, "reference images"))
            if few := [f"{num} {of}" for num, of in sets if 0 < num <= len(moments.mean)]:
                found.append(
                    f"a Frechet distance from {' and '.join(few)} in {len(moments.mean)} dimensions ({output}) is far "
                    "too large, since the covariance of no more images than dimensions is singular: compare it with "
                    "equal numbers only, take more images, or measure kid, which has no such bias"
                )
        return found

    def _check_number(self, metric: RegisteredMetric, fewest: int, num: int, of: str) -> None:
        if num < fewest:
            hint = f", or lower options.{metric.lowered_by}" if metric.lowered_by else ""
            raise ValueError(f"{metric.name} needs at least {fewest}, got {num} {of}{hint}")

    def protocol(self) -> dict[str, dict[str, Any]]:
        """The options that decide the chosen metrics, by metric."""
        found = {metric.name: dict(metric.options(self)) for metric in self.chosen}
        return {name: found[name] for name in self.metrics}

    def compute(
        self, samples: Statistics, reference: Statistics, seed: int = 0, device: Device = "cpu"
    ) -> dict[str, dict[str, float]]:
        """The numbers of each metric by score; an encoder's `key` turns a score into its name. No process waits.

        seed: decides the random subsets, which are the same on every process.
        """
        return {
            metric.name: metric.scores(Work(self, samples, reference, seed, metric.stream, device))
            for metric in self.chosen
        }


def metrics_for(offered: Sequence[str]) -> tuple[str, ...]:
    """The names of all metrics that an encoder with these outputs allows."""
    return tuple(name for name, metric in METRICS.items() if {*metric.samples.outputs} <= {*offered})


def _join(needs: Sequence[Needs]) -> Needs:
    moments = tuple(dict.fromkeys(name for need in needs for name in need.moments))
    return Needs(moments, any(need.features for need in needs), any(need.logits for need in needs))
