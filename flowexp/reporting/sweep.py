"""A sweep's folder: the table that it ended with, and its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flowexp.records.job_table import JobTable
from flowexp.reporting.drawing import draw_lines
from flowexp.reporting.reading import number
from flowexp.reporting.sections import Chart


@dataclass(frozen=True)
class Sweep:
    """The table of a sweep with the way to its jobs.

    Arguments:
        pages: by job, the page of its run, relative to the sweep's folder; None where the job left no run.
    """

    folder: Path
    table: JobTable
    pages: dict[str, str | None]

    @property
    def varied(self) -> list[str]:
        """The settings in which jobs differ; those of a single job are all shown."""
        shared = self.alike
        return [key for key in self.table.settings if key not in shared]

    @property
    def alike(self) -> dict[str, str]:
        """The settings that all of several jobs share: a line below the table, and no column."""
        return self.table.shared if len(self.table.rows) > 1 else {}


def read_sweep(folder: Path) -> Sweep:
    """The sweep in `folder`. Raises ValueError where its table has no row."""
    table = JobTable.read(folder)
    return Sweep(folder, table, {row.job: _page_of(folder, row.job) for row in table.rows})


def _page_of(folder: Path, job: str) -> str | None:
    return f"{job}/report.html" if (folder / job / "config.yaml").is_file() else None


def sweep_charts(sweep: Sweep) -> list[Chart]:
    """Each number over the one setting that was swept; none where several were, or it is no number."""
    if len(sweep.varied) != 1:
        return []
    (setting,) = sweep.varied
    rows = [{**row.numbers, setting: number(row.settings.get(setting, ""))} for row in sweep.table.rows]
    if any(math.isnan(row[setting]) for row in rows):
        return []
    drawn = [(name, draw_lines(rows, setting, name)) for name in sweep.table.numbers]
    return [Chart(name, svg) for name, svg in drawn if svg]
