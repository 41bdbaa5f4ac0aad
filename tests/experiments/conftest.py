"""Recipes without a process for each of their runs, whose imports take the time, and configs that are composed once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from flowexp.cli.recipes import minutes, runs
from flowexp.measuring.diagnostics import logistic_regression

TOGETHER = {  # on one of pytest-xdist's workers, which composes each config once
    "test_catalogue": "experiments",
    "test_dry_runs": "experiments",
    "test_every_line_of_every_budget_composes": "lines",
    "test_what_measures_the_lines_composes_at_every_budget": "lines",
}


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == Path(__file__).parent:
            names = (item.path.stem, getattr(item, "originalname", ""))
            for group in [TOGETHER[name] for name in names if name in TOGETHER]:
                item.add_marker(pytest.mark.xdist_group(group))


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
