"""The lines of a recipe's figure: runs that are trained once, shared by all recipes, and measured as the yaml says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from tqdm import tqdm

from flowexp.cli.recipes.minutes import fit_to_minutes
from flowexp.cli.recipes.recipe import Recipe
from flowexp.cli.recipes.runs import measurement_of, protocol_of, run_of, seeded
from flowexp.cli.recipes.together import train_together
from flowexp.records.files.atomic import write_json
from flowexp.records.files.fingerprint import of_values
from flowexp.records.files.json_files import read_object
from flowexp.records.recording import read_history
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import read_csv

Rows = list[dict[str, Any]]
Place = tuple[tuple[str, ...], int]  # a line's label and seed
Columns = dict[str, Any]  # what tells a line from another: panel, method, and a value for each setting of the grid


@dataclass(frozen=True)
class Line:
    """A line of a figure: trained weights, and what was measured of them.

    Arguments:
        columns: what tells it from other lines, in front of each of its rows.
        trained: the run that trained the weights.
        measured: the folder with the measurements: the run itself, or an evaluation or a diagnosis of it.
        part: which of the yaml's `measurements`; empty where there is one `measured` or none.
    """

    columns: Columns
    trained: RunFolder
    measured: RunFolder
    part: str = ""

    @property
    def label(self) -> str:
        """What tells the line from all others of its recipe, in words."""
        return ", ".join(str(value) for value in (*self.columns.values(), self.part) if value != "")

    def epochs(self, step: int) -> float:
        """How often the training images were seen after `step` steps."""
        steps = str(self.trained.trained_by().origin()["plan"]["steps"])  # such as "3,000 (938 per epoch)"
        return step / int(steps.partition("(")[2].partition(" ")[0].replace(",", ""))

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
    """All lines of a recipe, in the order of its yaml, and what else its `measure` reads.

    Arguments:
        settings: of the recipe's budget.
        seeds: those of what it draws itself; of its lines each has its own.
        parts: folder of what `kept` keeps.
    """

    lines: tuple[Line, ...]
    settings: DictConfig
    seeds: range = range(1)
    parts: Path = Path("parts")

    def __getitem__(self, place: Any) -> Any:
        return self.lines[place]

    def __len__(self) -> int:
        return len(self.lines)

    def of(self, part: str) -> Lines:
        """The lines as the entry `part` of the yaml's `measurements` measured them."""
        return replace(self, lines=tuple(line for line in self.lines if line.part == part))

    def kept(self, cell: Mapping[str, Any], measure: Callable[[], Columns]) -> Columns:
        """What `measure` finds of a cell, which a later run of the recipe does not measure again.

        cell: all that decides what is found, as plain values. A long recipe whose cells are no runs goes on so.
        """
        file = self.parts / f"{of_values(cell)}.json"
        if not file.exists():
            write_json(file, {"cell": cell, "found": measure()})
        found: Columns = read_object(file)["found"]
        return found


def lines_of(recipe: Recipe) -> Lines:
    """Trains what is not trained yet, measures what is not measured yet, and gives the lines of the figure.

    Every line is trained with each of the recipe's seeds, those that `one_seed` of the yaml names with the first alone;
    seeds count from the yaml's `first_seed`, 0 where it names none;
    `side_by_side` says how many train at a time, where one leaves cores idle.
    `measured` in the yaml has each run measured by `flowexp.evaluate` (or what `measured_by` names) with these
    overrides, once for every combination of the values in `grid`, or in each of a list of grids. There `step` means the
    weights of that training step, whose checkpoint the run must keep, and a mapping has the overrides of each value.
    Several such measurements stand in `measurements`, by name, each with these keys; `lines` there names those it is
    made of.
    """
    trained, parts = _trained(recipe), _parts(recipe.settings)
    if not parts:
        return _lines(recipe, [Line(columns, run, run) for columns, run in trained])
    cells = [
        (part, columns, run, cell, _overrides(grid, cell, run))
        for part, spec in parts.items()
        for columns, run in trained
        if columns["method"] in spec.get("lines", [columns["method"]])
        for grid in _grids(spec)
        for cell in cells_of(grid)
    ]
    bar = tqdm(cells, desc="measuring", unit="cell", disable=len(cells) < 2)
    measured = [
        Line(columns | cell, run, _measured(parts[part], overrides, run), part)
        for part, columns, run, cell, overrides in bar
    ]
    return _lines(recipe, measured)


def _lines(recipe: Recipe, lines: Sequence[Line]) -> Lines:
    return Lines(tuple(lines), recipe.settings, recipe.seeds_of(recipe.seeds), recipe.results / "parts")


def _parts(settings: DictConfig) -> Mapping[str, DictConfig]:
    """The measurements of a budget by their names; a single one has none."""
    if "measurements" in settings:
        return {str(name): part for name, part in settings.measurements.items()}
    return {"": settings} if "measured" in settings else {}


def _measured(spec: DictConfig, overrides: Sequence[str], run: RunFolder) -> RunFolder:
    return measurement_of(run, spec.get("measured_by", "evaluate"), [*spec.measured, *overrides])


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
    seeds = {label: recipe.seeds_of(1 if label[-1] in once else recipe.seeds) for label in lines}
    wanted = [(label, seed) for seed in recipe.seeds_of(recipe.seeds) for label in lines if seed in seeds[label]]
    overrides = {(label, seed): [*fitted[", ".join(label)], *seeded(seed)] for label, seed in wanted}
    most = int(recipe.settings.get("side_by_side", 1))
    runs = _one_by_one(overrides) if most == 1 else _together(overrides, most, recipe)
    ordered = [(label, seed) for label in lines for seed in seeds[label]]
    return [(_columns(label) | _seed(recipe, seed), runs[label, seed]) for label, seed in ordered]


def _one_by_one(overrides: Mapping[Place, list[str]]) -> dict[Place, RunFolder]:
    """Trains one line after the other, with the time left where there are several."""
    runs, began = {}, time.perf_counter()
    for number, ((label, seed), words) in enumerate(overrides.items()):
        if len(overrides) > 1:
            print(f"\n{progress(number, len(overrides), time.perf_counter() - began)}: {', '.join(label)}, seed {seed}")
        runs[label, seed] = run_of(words)
    return runs


def _together(overrides: Mapping[Place, list[str]], most: int, recipe: Recipe) -> dict[Place, RunFolder]:
    """Trains `most` lines at a time."""
    named = {(label, seed): ", ".join([*label, *([f"seed {seed}"] if seed else [])]) for label, seed in overrides}
    logs = recipe.results / "logs"
    print(f"training {', '.join(named.values())}, {most} at a time (all that they print: {logs})", flush=True)
    runs = train_together({named[place]: words for place, words in overrides.items()}, most, logs)
    return {place: runs[name] for place, name in named.items()}


def scale_of(lines: Sequence[Line], seeds: int) -> str:
    """How much was trained, in a line: data, parameters, steps x batch, seeds, of what the plans of all lines say."""
    runs = [line.trained.trained_by() for line in lines]
    plans = [run.origin().get("plan") or {"steps": f"{run.trained_step() or 0:,}"} for run in runs]  # adopted: none
    parts = [
        _each(str(plan.get("data", "")).partition(",")[0] for plan in plans),
        _each(str(plan.get("backbone", "")).replace(" trained", "") for plan in plans),
        _each(f"{str(plan.get('steps', '')).partition(' (')[0]} steps" for plan in plans),
    ]
    return "; ".join([*filter(None, parts), f"{seeds} seed{'s' * (seeds > 1)}{_fewer(lines, seeds)}"]) if lines else ""


def _fewer(lines: Sequence[Line], seeds: int) -> str:
    """The methods with fewer seeds, such as " (width 32: 1)"."""
    of = {line.columns["method"]: set[Any]() for line in lines}
    for line in lines:
        of[line.columns["method"]].add(line.columns.get("seed"))
    fewer = [f"{method}: {len(own)}" for method, own in of.items() if len(own) < seeds]
    return f" ({', '.join(fewer)})" if fewer else ""


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
    """The settings of a cell; a `step` is the checkpoint of that step, and a value of a mapping its overrides.

    The last step is the run itself.
    """
    overrides: list[str] = []
    for key, value in cell.items():
        if key != "step":
            overrides += grid[key][value] if isinstance(grid[key], Mapping) else [f"{key}={value}"]
        elif value != run.trained_by().trained_step():
            overrides.append(f"checkpoint={run.trained_by().path}/checkpoints/step_{value:08d}.ckpt")
    return overrides
