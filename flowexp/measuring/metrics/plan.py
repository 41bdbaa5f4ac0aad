"""Which scores are wanted, what they need of samples and reference, and their numbers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import Any

from flowexp.measuring.metrics.collecting import Needs, Statistics
from flowexp.measuring.metrics.neighbours import Device
from flowexp.measuring.metrics.options import MetricOptions
from flowexp.measuring.metrics.registry import METRICS, RegisteredMetric, Work, find_metric


@dataclass(frozen=True)
class MetricPlan(MetricOptions):
    """A choice of metrics with their options; one pass over samples and one over the reference serve all of them.

    Arguments:
        metrics: names, of `METRICS`; `file.name` for one's own, see `flowexp.measuring.metrics.registry`.
        options: see `MetricOptions`, by name.

    Raises:
        ValueError: no metric, one that is not known, or an option that no metric could work with.
    """

    metrics: Sequence[str]

    @classmethod
    def of(cls, metrics: Sequence[str], options: Mapping[str, Any]) -> MetricPlan:
        """The plan with options by name, as a config gives them.

        Raises:
            ValueError: as for the plan, or an option that there is not.
        """
        known = [field.name for field in fields(MetricOptions)]
        if unknown := sorted(set(options) - set(known)):
            raise ValueError(f"options of metrics are {', '.join(known)}; got {', '.join(unknown)}")
        return cls(metrics, **options)

    def __post_init__(self) -> None:
        if not self.metrics:
            raise ValueError(f"metrics must be some of {', '.join(METRICS)}, got none")
        super().__post_init__()
        object.__setattr__(self, "metrics", tuple(find_metric(name).name for name in self.metrics))

    @property
    def chosen(self) -> list[RegisteredMetric]:
        """The metrics, those of flowexp in a fixed order."""
        wanted = set(self.metrics)
        return [metric for name, metric in METRICS.items() if name in wanted]

    @property
    def scores(self) -> tuple[str, ...] | None:
        """The names of all scores; None where a metric declares none."""
        gives = [metric.gives for metric in self.chosen]
        return None if None in gives else tuple(name for names in gives for name in names or ())

    @property
    def samples(self) -> Needs:
        """What one pass over the samples must leave."""
        return _join([metric.samples for metric in self.chosen])

    @property
    def reference(self) -> Needs:
        """What must be known of the reference."""
        return _join([metric.reference for metric in self.chosen])

    def check(self, num_samples: int, offered: Sequence[str]) -> None:
        """Check the requirements of the chosen metrics before sampling.

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
        """Cautions about Frechet distances of so few images: a sentence for each output, or none."""
        found = []
        for output in self.reference.moments:
            moments = reference.moments[output]  # a count of 0: the file has none
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
