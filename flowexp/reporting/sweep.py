"""A sweep's folder: the table that it ended with, and its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flowexp.reporting.drawing import draw_lines
from flowexp.reporting.reading import Cells, number, read_cells
from flowexp.reporting.sections import Chart


@dataclass(frozen=True)
class Sweep:
    """The rows of `sweep.csv`.

    Arguments:
        pages: by job, the page of its run, relative to the sweep's folder; None where the job left no run.
    """

    folder: Path
    columns: list[str]
    rows: list[Cells]
    pages: dict[str, str | None]

    @property
    def settings(self) -> list[str]:
        """The columns that the sweep varied: those between the job's name and the first number that it measured."""
        return [c for c in self.columns if c not in ("job", "status") and not is_measured(c)]

    @property
    def numbers(self) -> list[str]:
        """The columns that were measured."""
        return [column for column in self.columns if is_measured(column)]


def is_measured(column: str) -> bool:
    """Whether a column of `sweep.csv` is a measurement's, such as `probe/peak`; overrides have dots or no slash."""
    return "/" in column and "." not in column


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has ended in `folder`."""
    return (folder / "sweep.csv").is_file()


def read_sweep(folder: Path) -> Sweep:
    """The sweep in `folder`. Raises ValueError where its table has no row."""
    rows = read_cells(folder / "sweep.csv")
    if not rows or "job" not in rows[0]:
        raise ValueError(f"{folder / 'sweep.csv'} has no table of jobs: start the sweep again in its folder")
    pages = {row["job"]: _page_of(folder, row["job"]) for row in rows}
    return Sweep(folder, list(rows[0]), rows, pages)


def _page_of(folder: Path, job: str) -> str | None:
    return f"{job}/report.html" if (folder / job / "config.yaml").is_file() else None


def sweep_charts(sweep: Sweep) -> list[Chart]:
    """Each number over the one setting that was swept; none where several were, or it is no number."""
    if len(sweep.settings) != 1:
        return []
    (setting,) = sweep.settings
    rows = [{column: number(row.get(column, "")) for column in (setting, *sweep.numbers)} for row in sweep.rows]
    if any(math.isnan(row[setting]) for row in rows):
        return []
    drawn = [(column, draw_lines(rows, setting, column)) for column in sweep.numbers]
    return [Chart(column, svg) for column, svg in drawn if svg]
