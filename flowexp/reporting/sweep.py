"""A sweep's folder: the table that it ended with, and its jobs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from flowexp.records.curves import number
from flowexp.records.job_table import JobTable
from flowexp.records.number_names import better, by_weight, is_detail, short_name
from flowexp.reporting.drawing import draw_lines, draw_points
from flowexp.reporting.numbers import MISSING
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
    def numbers(self) -> list[str]:
        """What was measured, with what differs and matters most first."""
        same = [name for name in self.table.numbers if len({row.numbers.get(name) for row in self.table.rows}) == 1]
        telling = [name for name in by_weight(self.table.numbers) if name not in same]
        return [*telling, *by_weight(same)]

    @property
    def best(self) -> dict[str, str]:
        """The job with the best value of each number, where one is better and it is known which way is."""
        found = {name: self.table.best_of(name, better(name)) for name in self.table.numbers}
        return {name: row.job for name, row in found.items() if row is not None}

    @property
    def cards(self) -> dict[str, list[str]]:
        """The different cards of each number that has one."""
        return {name: list(dict.fromkeys(row.cards[name] for row in self.table.rows if name in row.cards))
                for name in self.table.cards if not is_detail(name)}  # fmt: skip

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
    """Each number over the one setting that was swept, by points where it is no number; none where several were."""
    if len(sweep.varied) != 1:
        return []
    (setting,) = sweep.varied
    rows = [{**row.numbers, setting: number(row.settings.get(setting, ""))} for row in sweep.table.rows]
    if any(math.isnan(row[setting]) for row in rows):
        words = [row.settings.get(setting, MISSING) for row in sweep.table.rows]
        drawn = [(name, draw_points(words, [row.numbers.get(name) for row in sweep.table.rows], name))
                 for name in sweep.numbers]  # fmt: skip
    else:
        drawn = [(name, draw_lines(rows, setting, name)) for name in sweep.numbers]
    return [Chart(short_name(name), svg) for name, svg in drawn if svg]
