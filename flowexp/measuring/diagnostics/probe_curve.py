"""What a probe reads off features along the noise level, and LCF's pathology in numbers (LCF Fig. 4)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from flowexp.measuring.diagnostics.convergence import ProbeFit
from flowexp.measuring.diagnostics.probe import READINGS, ProbeProtocol, read_features


@dataclass(frozen=True)
class ProbeCurve:
    """Probe accuracy by (noise level, tap), and LCF's pathology in numbers (LCF Fig. 4).

    The numbers below are of the tap that has the best accuracy of all.

    num_test: held-out images behind each accuracy. num_classes: of their labels. chance: the accuracy of who always
    says the commonest class of them; None is 1 / num_classes. fits: how each linear probe was fitted; empty where
    nothing is. None where it is not known; the verdict needs the first two.
    """

    accuracy: Mapping[tuple[float, int], float]
    num_test: int | None = None
    num_classes: int | None = None
    chance: float | None = None
    fits: Mapping[tuple[float, int], ProbeFit] = field(default_factory=dict)
    correct: Mapping[tuple[float, int], Tensor] = field(default_factory=dict)

    @property
    def peak(self) -> float:
        """The best accuracy of all."""
        return max(self.accuracy.values())

    @property
    def t_peak(self) -> float:
        """The noise level of the peak."""
        return self._best[0]

    @property
    def tap_peak(self) -> int:
        """The tap of the peak."""
        return self._best[1]

    @property
    def at_clean(self) -> float:
        """The accuracy at the lowest level."""
        return self.accuracy[min(level for level, _ in self.accuracy), self.tap_peak]

    @property
    def dip(self) -> float:
        """What is lost from the peak down to the lowest level; 0 where accuracy only falls with noise."""
        return self.peak - self.at_clean

    @property
    def dip_se(self) -> float | None:
        """Standard error of the dip, over the choice of test images; None without num_test.

        The peak and the cleanest level are measured on the same images: the error is that of the mean of their paired
        differences. Where `correct` is not known the two count as independent, which is too large:
        sqrt((p (1 - p) + q (1 - q)) / num_test).
        """
        if self.num_test is None:
            return None
        cleanest = min(level for level, _ in self.accuracy), self.tap_peak
        if {self._best, cleanest} <= {*self.correct}:
            return paired_se(self.correct[self._best], self.correct[cleanest])
        return (sum(share * (1 - share) for share in (self.peak, self.at_clean)) / self.num_test) ** 0.5

    def along(self, tap: int) -> list[tuple[float, float]]:
        """(t, accuracy) of one tap, ascending in t."""
        return sorted((level, value) for (level, own), value in self.accuracy.items() if own == tap)

    @property
    def _best(self) -> tuple[float, int]:
        return max(self.accuracy, key=self.accuracy.__getitem__)

    def rows(self) -> list[dict[str, Any]]:
        """The curve in long format, with how each probe was fitted where that is known."""
        return [
            {"t": cell[0], "tap": cell[1], "accuracy": value, **(vars(self.fits[cell]) if self.fits else {})}
            for cell, value in self.accuracy.items()
        ]


def paired_se(one: Tensor, other: Tensor) -> float:
    """Standard error of the difference of two accuracies on the same M images: correct (M,) bool, of each."""
    difference = one.double() - other.double()
    return float(difference.std(correction=0)) / len(difference) ** 0.5


def probe_curves(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    levels: Sequence[float],
    taps: Sequence[int],
    protocol: str | ProbeProtocol = "lcf",
    readings: Sequence[str] = READINGS,
    seed: int = 0,
) -> dict[str, ProbeCurve]:
    """One curve for each reading of `READINGS`, from features that were extracted once.

    features: (levels * taps, N, D), as `extract_features` gives them for these levels and taps. protocol: of the
    reading "paper".

    Raises:
        ValueError: an unknown reading or protocol.
    """
    places = [(level, tap) for level in levels for tap in taps]
    data = (train_features, train_labels, test_features, test_labels, num_classes)
    chance = commonest_share(test_labels)
    found = {}
    for reading in readings:
        result = read_features(reading, *data, protocol=protocol, seed=seed)
        found[reading] = ProbeCurve(
            dict(zip(places, result.accuracy.tolist(), strict=True)),
            len(test_labels),
            num_classes,
            chance,
            dict(zip(places, result.fits, strict=True)) if result.fits else {},
            dict(zip(places, result.correct, strict=True)),
        )
    return found


def commonest_share(labels: Tensor) -> float:
    """The accuracy of who always says the commonest of labels (N,)."""
    return float(labels.unique(return_counts=True)[1].max()) / len(labels)
