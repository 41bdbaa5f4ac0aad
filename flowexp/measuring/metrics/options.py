"""The options of all metrics, which a metric reads and a plan of metrics is made with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flowexp.measuring.metrics.extrapolation import check_interval, check_sizes

MAY_BE_NULL = ("pairwise_reference", "infinity_smallest")
COUNTS = ("split_size", "k", "kid_subsets", "kid_subset_size", "infinity_sizes", "resamples", *MAY_BE_NULL)


@dataclass(frozen=True, kw_only=True)
class MetricOptions:
    """What decides scores beside the samples and the reference.

    Arguments:
        split_size: images in one split of the Inception Score.
        k: neighbours of precision and recall.
        pairwise_reference: how many reference images precision, recall and the kernel distance over all pairs take: a
            fixed random subset where there are more; None takes all. ADM's files have 10,000. Precision depends on it.
        kid_subsets, kid_subset_size: of the kernel distance.
        infinity_sizes, infinity_smallest: see `frechet_infinity`.
        resamples, confidence: see `frechet_interval`.

    Raises:
        ValueError: an option that no metric could work with.
    """

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
        for name in COUNTS:
            self._check_count(name, getattr(self, name))
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
