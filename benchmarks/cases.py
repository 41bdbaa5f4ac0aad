"""The cases by name: what each compares, and in how many rounds where nobody says."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass

from benchmarks import counting, evaluating, loading, mfu, networks, peers, probing, sampling, starting, step, training
from benchmarks.sizes import Size
from benchmarks.table import Result


@dataclass(frozen=True)
class Case:
    """A comparison, given a size and a number of rounds.

    rounds: as many as show a hundredth on a machine with some noise, where a promise is that narrow.
    """

    measure: Callable[[Size, int], Result]
    rounds: int

    def run(self, size: Size) -> Result:
        """What it finds."""
        return self.measure(size, self.rounds_at(size))

    def rounds_at(self, size: Size) -> int:
        """The size's rounds, or else its own where the size allows as many."""
        return size.rounds or min(self.rounds, size.most_rounds)

    @property
    def summary(self) -> str:
        """What is compared to what, in a sentence."""
        return self.paragraphs[0]

    @property
    def paragraphs(self) -> list[str]:
        """All that is said of it, a line each."""
        text = inspect.cleandoc(self.measure.__doc__ or "")
        return [" ".join(paragraph.split()) for paragraph in text.split("\n\n")]


CASES = {
    "start": Case(starting.start, rounds=5),
    "step": Case(step.step, rounds=5),
    "networks": Case(networks.networks, rounds=5),
    "mfu": Case(mfu.mfu, rounds=10),
    "lightning": Case(training.lightning, rounds=30),
    "objectives": Case(training.objectives, rounds=40),
    "precision": Case(training.precision, rounds=6),
    "ema": Case(training.ema, rounds=10),
    "loader": Case(loading.loader, rounds=10),
    "solver": Case(sampling.solver, rounds=24),
    "probe": Case(probing.probe, rounds=3),
    "evaluate": Case(evaluating.evaluate, rounds=4),
    "latents": Case(counting.latents, rounds=9),
    "peers": Case(peers.peers, rounds=5),
}
