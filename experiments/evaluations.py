"""What recipes share that train nothing: one run's weights, evaluated once for each combination of some settings."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from typing import Any

from tqdm import tqdm

from experiments.recipes import Recipe, measurement_of, run_of
from flowexp.records import atomic
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import write_csv

Cell = dict[str, Any]  # a value for each setting that is varied, by its key on the command line


def evaluate_grid(recipe: Recipe) -> list[tuple[Cell, RunFolder]]:
    """Every cell of `grid` in the recipe's yaml with its evaluation: found where it exists, else made by the command.

    The run is the one that `run=` names, or the only one of `lines`, trained where it is not trained yet. Writes
    `grid.csv` (the cell's settings, the network calls of a sample, the scores) and `protocol.json`.
    """
    run = _run_of(recipe)
    cells = [*cells_of(recipe.settings.grid)]
    measured = list(recipe.settings.measured)
    evaluated = [
        (cell, measurement_of(run, "evaluate", [*measured, *(f"{key}={value}" for key, value in cell.items())]))
        for cell in tqdm(cells, desc="evaluating", unit="cell")
    ]
    write_csv(recipe.results / "grid.csv", [row_of(cell, evaluation) for cell, evaluation in evaluated])
    _write_protocol(recipe, run, evaluated)
    return evaluated


def _run_of(recipe: Recipe) -> RunFolder:
    if recipe.run is not None:
        return RunFolder(recipe.run)
    (overrides,) = recipe.settings.lines.values()
    return run_of([*overrides, *recipe.settings.shared])


def cells_of(grid: Mapping[str, Sequence[Any]]) -> Iterator[Cell]:
    """Every combination of the values of some settings; the last one changes fastest."""
    for values in product(*grid.values()):
        yield dict(zip(grid, values, strict=True))


def row_of(cell: Cell, evaluation: RunFolder) -> dict[str, Any]:
    """A line of `grid.csv`."""
    summary = evaluation.summary()
    scored = next(protocol for protocol in summary["protocol"].values() if "nfe" in protocol)
    return {**cell, "network calls": scored["nfe"], **summary["scalars"]}


def distance_in(row: Mapping[str, Any]) -> str:
    """The column of a row's Frechet distance: `fid`, or `frechet/ENCODER`."""
    return next(name for name in row if name == "fid" or name.startswith("frechet/"))


def distance_name(column: str) -> str:
    """What an axis says for the column of a Frechet distance: only Inception's is FID."""
    return "FID" if column == "fid" else f"Frechet distance, {column.partition('/')[2]}"


def interval_in(row: Mapping[str, Any]) -> tuple[str, str] | None:
    """The columns of the distance's lower and upper end; None without the metric frechet_interval."""
    low = [name for name in row if name == "fid_low" or name.startswith("frechet_low/")]
    return (low[0], low[0].replace("_low", "_high")) if low else None


def _write_protocol(recipe: Recipe, run: RunFolder, evaluated: Sequence[tuple[Cell, RunFolder]]) -> None:
    known = run.origin()
    origin = {key: known[key] for key in ("plan", "seed", "versions", "commit", "machine") if key in known}
    cells = [{"cell": cell, "measured": evaluation.summary()["protocol"]} for cell, evaluation in evaluated]
    content = {"trained": origin, "step": evaluated[0][1].summary()["step"], "evaluated": cells}
    atomic.write_json(recipe.results / "protocol.json", content)
