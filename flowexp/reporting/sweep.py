"""A sweep's folder: the table that it ended with, and its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flowexp.records.protocol_card import card_column, is_card_column
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
        """The columns that the sweep varied: no numbers, and none in which several jobs are alike."""
        others = ("job", "status", *self.numbers)
        said = [column for column in self.columns if column not in others and not is_card_column(column)]
        return [column for column in said if len(self.rows) == 1 or len({row[column] for row in self.rows}) > 1]

    @property
    def numbers(self) -> list[str]:
        """The columns that were measured."""
        return [column for column in self.columns if self._is_measured(column)]

    def _is_measured(self, column: str) -> bool:
        """Whether it is a number with a card, such as `fid`, or another such as `probe/peak`; overrides have dots."""
        named = "/" in column and "." not in column and not is_card_column(column)
        return named or card_column(column) in self.columns


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
