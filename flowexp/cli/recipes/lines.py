"""The lines of a recipe's figure: runs that are trained once, shared by all recipes, and measured as the yaml says."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
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

    Every line is trained with each of the recipe's seeds, those that `one_seed` of the yaml names with the first alone.
    `measured` in the yaml has each run measured by `flowexp.evaluate` (or what `measured_by` names) with these
    overrides, once for every combination of the values in `grid`, or in each of a list of grids. There `step` means the
    weights of that training step, whose checkpoint the run must keep, and a mapping has the overrides of each value.
    """
    trained = _trained(recipe)
    if "measured" not in recipe.settings:
        return Lines(tuple(Line(columns, run, run) for columns, run in trained), recipe.settings)
    command = recipe.settings.get("measured_by", "evaluate")
    cells = [
        (columns, run, cell, _overrides(grid, cell, run))
        for columns, run in trained
        for grid in _grids(recipe.settings)
        for cell in cells_of(grid)
    ]
    measured = [
        Line(columns | cell, run, measurement_of(run, command, [*recipe.settings.measured, *overrides]))
        for columns, run, cell, overrides in tqdm(cells, desc="measuring", unit="cell", disable=len(cells) < 2)
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
    once = recipe.settings.get("one_seed", [])
    seeds = {label: 1 if label[-1] in once else recipe.seeds for label in lines}
    wanted = [(label, seed) for seed in range(recipe.seeds) for label in lines if seed < seeds[label]]
    runs, began = {}, time.perf_counter()
    for number, (label, seed) in enumerate(wanted):
        if len(wanted) > 1:
            print(f"\n{progress(number, len(wanted), time.perf_counter() - began)}: {', '.join(label)}, seed {seed}")
        runs[label, seed] = run_of([*fitted[", ".join(label)], *([f"seed={seed}"] if seed else [])])
    ordered = [(label, seed) for label in lines for seed in range(seeds[label])]
    return [(_columns(label) | _seed(recipe, seed), runs[label, seed]) for label, seed in ordered]


def scale_of(lines: Sequence[Line], seeds: int) -> str:
    """How much was trained, in a line: data, parameters, steps x batch, seeds, of what the plans of all lines say."""
    plans = [line.trained.trained_by().origin().get("plan") or {} for line in lines]
    parts = [
        _each(str(plan.get("data", "")).partition(",")[0] for plan in plans),
        _each(str(plan.get("backbone", "")).replace(" trained", "") for plan in plans),
        _each(f"{str(plan.get('steps', '')).partition(' (')[0]} steps" for plan in plans),
    ]
    return "; ".join([part for part in parts if part] + [f"{seeds} seed{'s' * (seeds > 1)}"]) if lines else ""


def _each(words: Iterable[str]) -> str:
    return " / ".join(word for word in dict.fromkeys(words) if word)


def progress(done: int, of: int, seconds: float) -> str:
    """Which line is next, and the time that the others will take if they take as long as those before.

    >>> progress(0, 6, 0.0), progress(2, 6, 240.0)
    ('line 1 of 6', 'line 3 of 6, about 8 minutes left')
    """
    left = f", about {seconds / done * (of - done) / 60:.0f} minutes left" if done and seconds > 30 * done else ""
    return f"line {done + 1} of {of}{left}"


def _columns(label: tuple[str, ...]) -> Columns:
    return dict(zip(("panel", "method")[-len(label) :], label, strict=True))


def _seed(recipe: Recipe, seed: int) -> Columns:
    return {"seed": seed} if recipe.seeds > 1 else {}


def _grids(settings: DictConfig) -> Sequence[Mapping[str, Any]]:
    """`grid` of a recipe's yaml, which may be one or several."""
    grid = settings.get("grid", {})
    return [grid] if isinstance(grid, Mapping) else grid


def cells_of(grid: Mapping[str, Iterable[Any]]) -> Iterator[Columns]:
    """Every combination of the values of some settings; the last one changes fastest. One empty one without any."""
    for values in product(*grid.values()):
        yield dict(zip(map(str, grid), values, strict=True))


def _overrides(grid: Mapping[str, Any], cell: Mapping[str, Any], run: RunFolder) -> list[str]:
    """The settings of a cell; a `step` is the checkpoint of that step, and a value of a mapping its overrides."""
    overrides: list[str] = []
    for key, value in cell.items():
        if key == "step":
            overrides.append(f"checkpoint={run.trained_by().path}/checkpoints/step_{value:08d}.ckpt")
        else:
            overrides += grid[key][value] if isinstance(grid[key], Mapping) else [f"{key}={value}"]
    return overrides
