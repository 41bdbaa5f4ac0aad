"""The lines of a recipe's figure: runs that are trained once, shared by all recipes, and measured as the yaml says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from flowexp.cli.recipes.minutes import fit_to_minutes
from flowexp.cli.recipes.recipe import Recipe
from flowexp.cli.recipes.runs import measurement_of, protocol_of, run_of
from flowexp.records.recording import read_history
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import read_csv

Rows = list[dict[str, Any]]
Columns = dict[str, Any]  # what tells a line from another: panel, method, and a value for each setting of the grid


@dataclass(frozen=True)
class Line:
    """A line of a figure: trained weights, and what was measured of them.

    Arguments:
        columns: what tells it from other lines, in front of each of its rows.
        trained: the run that trained the weights.
        measured: the folder with the measurements: the run itself, or an evaluation or a diagnosis of it.
    """

    columns: Columns
    trained: RunFolder
    measured: RunFolder

    def rows(self, name: str) -> Rows:
        """The table of the last measurement `name`, with the line's columns."""
        *_, last = self._by_step(name).values()
        return [self.columns | row for row in last]

    def rows_over_steps(self, name: str) -> Rows:
        """The tables of the measurement `name` at every step at which it was made, with a column `step`."""
        return [self.columns | {"step": step} | row for step, rows in self._by_step(name).items() for row in rows]

    def scores_over_steps(self) -> Rows:
        """A row for each time that samples were scored: the step and the scores."""
        scored = [entry for entry in read_history(self.measured.path) if "card" in entry["protocol"]]
        return [self.columns | {"step": entry["step"], **entry["scalars"]} for entry in scored]

    def scores(self) -> Columns:
        """The numbers at the end, with the line's columns and the network calls of a sample where one was drawn."""
        summary = self.measured.summary()
        calls = [protocol["nfe"] for protocol in summary["protocol"].values() if "nfe" in protocol]
        return self.columns | ({"network calls": calls[0]} if calls else {}) | summary["scalars"]

    def picture(self, name: str) -> Path:
        """The picture of the last measurement `name`."""
        step = max(entry["step"] for entry in read_history(self.measured.path) if entry["name"] == name)
        return self.measured.path / "measurements" / name / f"step_{step:08d}.png"

    def protocol(self) -> dict[str, Any]:
        """How the line's numbers came about."""
        return protocol_of(self.trained) | {"measured": self.measured.summary()["protocol"]}

    def _by_step(self, name: str) -> dict[int, Rows]:
        folder = self.measured.path
        steps = [entry["step"] for entry in read_history(folder) if entry["name"] == name]
        return {step: read_csv(folder / "measurements" / name / f"step_{step:08d}.csv") for step in steps}


@dataclass(frozen=True)
class Lines(Sequence[Line]):
    """All lines of a recipe, in the order of its yaml, and the settings of its budget."""

    lines: tuple[Line, ...]
    settings: DictConfig

    def __getitem__(self, place: Any) -> Any:
        return self.lines[place]

    def __len__(self) -> int:
        return len(self.lines)


def lines_of(recipe: Recipe) -> Lines:
    """Trains what is not trained yet, measures what is not measured yet, and gives the lines of the figure.

    `measured` in the yaml has each run measured by `flowexp.evaluate` (or what `measured_by` names) with these
    overrides, once for every combination of the values in `grid`.
    """
    trained = _trained(recipe)
    if "measured" not in recipe.settings:
        return Lines(tuple(Line(columns, run, run) for columns, run in trained), recipe.settings)
    command = recipe.settings.get("measured_by", "evaluate")
    cells = [(columns, run, cell) for columns, run in trained for cell in cells_of(recipe.settings.get("grid", {}))]
    measured = [
        Line(columns | cell, run, measurement_of(run, command, [*recipe.settings.measured, *_overrides(cell)]))
        for columns, run, cell in tqdm(cells, desc="measuring", unit="cell", disable=len(cells) < 2)
    ]
    return Lines(tuple(measured), recipe.settings)


def _trained(recipe: Recipe) -> list[tuple[Columns, RunFolder]]:
    lines = recipe.lines
    if recipe.run is not None:
        if len(lines) != 1:
            raise ValueError(
                f"run= stands for the one line of a recipe, and {recipe.name} has {len(lines)}: leave it out"
            )
        return [(_columns(*lines), RunFolder(recipe.run))]
    fitted = fit_to_minutes(recipe, {", ".join(label): overrides for label, overrides in lines.items()})
    return [(_columns(label), run_of(fitted[", ".join(label)])) for label in lines]


def _columns(label: tuple[str, ...]) -> Columns:
    return dict(zip(("panel", "method")[-len(label) :], label, strict=True))


def cells_of(grid: Mapping[str, Sequence[Any]]) -> Iterator[Columns]:
    """Every combination of the values of some settings; the last one changes fastest. One empty one without any."""
    for values in product(*grid.values()):
        yield dict(zip(map(str, grid), values, strict=True))


def _overrides(cell: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value}" for key, value in cell.items()]
