"""Recipes without a process for each of their runs: their imports are what takes time."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest

from flowexp.cli.recipes import minutes, runs
from flowexp.measuring.diagnostics import logistic_regression


@pytest.fixture
def runs_in_process(in_process: Callable[..., int], quick_pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Recipes run their commands in the process of the test, and their folders lie in an empty current folder.

    A probe of a network that has learned nothing would take a thousand iterations to converge.
    """

    def call(name: str, overrides: Sequence[str]) -> None:
        assert in_process(name, *overrides) == 0

    for room in (runs, minutes):
        monkeypatch.setattr(room, "call", call)
    monkeypatch.setattr(logistic_regression, "MOST_ITERATIONS", 100)
