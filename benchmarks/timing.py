"""Time measured side by side: contestants take turns, and a ratio is taken in each round, never between two runs."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import comb
from statistics import median, quantiles
from typing import Any

import torch

Contestant = Callable[[], float]  # does its work and returns the seconds that it took


def stopwatch(
    work: Callable[[], Any],
    device: torch.device | None = None,
    repeats: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> Contestant:
    """A contestant that does `work` `repeats` times and returns the seconds of one, the device's included."""

    def run() -> float:
        wait_for(device)
        start = clock()
        for _ in range(repeats):
            work()
        wait_for(device)
        return (clock() - start) / repeats

    return run


def wait_for(device: torch.device | None) -> None:
    """Returns when the device has done what it was given; a CPU always has."""
    if device is not None and device.type != "cpu":
        torch.accelerator.synchronize(device)


@dataclass(frozen=True)
class Spread:
    """Median and quartiles of some values, and between which two of them the median of all such values lies.

    interval: the narrowest pair of order statistics, as far from one end as from the other, that holds it with 95 %;
        the smallest and the largest value where five or fewer cannot.
    """

    median: float
    low: float
    high: float
    interval: tuple[float, float]

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        ordered, skipped = sorted(values), left_out(len(values))
        interval = (ordered[skipped], ordered[-1 - skipped])
        if len(values) == 1:
            return cls(values[0], values[0], values[0], interval)
        low, middle, high = quantiles(values, n=4, method="inclusive")
        return cls(middle, low, high, interval)


def left_out(num_values: int, confidence: float = 0.95) -> int:
    """How many values may be left out at either end so that the rest still spans the median with that probability.

    Each value falls below the median as a coin falls: at most k of n do with sum_{i <= k} C(n, i) / 2^n.
    """
    allowed, tail, skipped = (1 - confidence) / 2 * 2**num_values, 1, 0
    while tail + comb(num_values, skipped + 1) <= allowed:
        skipped += 1
        tail += comb(num_values, skipped)
    return skipped


@dataclass(frozen=True)
class Timings:
    """Seconds of every contestant, one number per round."""

    seconds: Mapping[str, Sequence[float]]

    def times(self, name: str, factor: float, new_name: str) -> Timings:
        """With one more contestant: that of `name`, who does all his work `factor` times."""
        return Timings({**self.seconds, new_name: [factor * taken for taken in self.seconds[name]]})

    def time(self, name: str) -> float:
        """The median time of a contestant."""
        return median(self.seconds[name])

    def ratio(self, name: str, against: str) -> Spread:
        """Spread of the ratios within each round: what slows a whole round down cancels."""
        return Spread.of([a / b for a, b in zip(self.seconds[name], self.seconds[against], strict=True)])


@dataclass(frozen=True)
class Comparison:
    """Contestants by name, run A B C, C B A, A B C, ...: what a machine loses steadily, all lose alike."""

    contestants: Mapping[str, Contestant]

    def run(self, rounds: int, warmup: int = 1) -> Timings:
        """Rounds that count, after rounds that do not. Raises ValueError below one round."""
        if rounds < 1:
            raise ValueError(f"a comparison needs at least 1 round, got {rounds}")
        seconds: dict[str, list[float]] = {name: [] for name in self.contestants}
        for turn in range(warmup + rounds):
            names = list(self.contestants)
            for name in names if turn % 2 == 0 else names[::-1]:
                taken = self.contestants[name]()
                if turn >= warmup:
                    seconds[name].append(taken)
        return Timings(seconds)
