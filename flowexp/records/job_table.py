"""The table of a sweep, a row for each job: as data in `sweep.json`, and for people in `sweep.csv`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from flowexp.records.files import atomic
from flowexp.records.files.json_files import read_object
from flowexp.records.tables import write_csv

FILE = "sweep.json"


@dataclass(frozen=True)
class JobRow:
    """One job of a sweep.

    Arguments:
        job: its folder in that of the sweep.
        status: how it ended, in words.
        is_finished: whether it ended well.
        settings: its values of the overrides, by key.
        numbers: what was measured, by name.
        cards: hashes of the protocol cards, by the number's name; numbers without samples have none.
    """

    job: str
    status: str
    is_finished: bool
    settings: Mapping[str, str]
    numbers: Mapping[str, float]
    cards: Mapping[str, str]


@dataclass(frozen=True)
class JobTable:
    """The rows of a sweep, and what its columns are: settings, numbers and their cards."""

    rows: tuple[JobRow, ...]

    @property
    def settings(self) -> list[str]:
        """The keys that the command line set."""
        return list(dict.fromkeys(key for row in self.rows for key in row.settings))

    @property
    def numbers(self) -> list[str]:
        """The names of what was measured."""
        return list(dict.fromkeys(name for row in self.rows for name in row.numbers))

    @property
    def cards(self) -> list[str]:
        """The numbers that have a card in some job."""
        return [name for name in self.numbers if any(name in row.cards for row in self.rows)]

    @property
    def shared(self) -> dict[str, str]:
        """The settings that have one value in all jobs."""
        first = self.rows[0].settings if self.rows else {}
        return {key: value for key, value in first.items() if all(row.settings.get(key) == value for row in self.rows)}

    def best_of(self, name: str, way: str | None) -> JobRow | None:
        """The one job with the best of a number; None of a tie, of one job, and where neither way is better.

        way: "less", "more", or None.
        """
        having = [row for row in self.rows if math.isfinite(row.numbers.get(name, math.nan))]
        if way is None or len(having) < 2:
            return None
        first, second, *_ = sorted(having, key=lambda row: row.numbers[name], reverse=way == "more")
        return first if first.numbers[name] != second.numbers[name] else None

    def write(self, folder: Path) -> Path:
        """Writes both files into the sweep's folder and returns the path of the CSV."""
        atomic.write_json(folder / FILE, {"jobs": [asdict(row) for row in self.rows]})
        write_csv(folder / "sweep.csv", [dict(self._cells(row)) for row in self.rows])
        return folder / "sweep.csv"

    def _cells(self, row: JobRow) -> Iterator[tuple[str, Any]]:
        yield "job", row.job
        yield from ((key, row.settings.get(key)) for key in self.settings)
        for name in self.numbers:
            yield name, row.numbers.get(name)
            if name in self.cards:
                yield card_column(name), row.cards.get(name)
        yield "status", row.status

    @classmethod
    def read(cls, folder: Path) -> JobTable:
        """The table of a sweep's folder. Raises ValueError where it is damaged, or has no row."""
        content = read_object(folder / FILE)
        try:
            rows = tuple(_row(**row) for row in content["jobs"])
        except (KeyError, TypeError, ValueError):
            rows = ()
        if not rows:
            raise ValueError(f"{folder / FILE} has no table of jobs: start the sweep again in its folder")
        return cls(rows)


def is_sweep(folder: Path) -> bool:
    """Whether a sweep has ended in `folder`."""
    return (folder / FILE).is_file()


def card_column(name: str) -> str:
    """The name of the CSV's column with the cards of the number `name`."""
    return f"card of {name}"


def _row(job: str, status: str, is_finished: bool, settings: Any, numbers: Any, cards: Any) -> JobRow:
    """A row whose numbers are numbers, and whose other cells are text."""
    texts = ({str(key): str(cell) for key, cell in dict(cells).items()} for cells in (settings, cards))
    measured = {str(name): float(value) for name, value in dict(numbers).items()}
    return JobRow(str(job), str(status), is_finished is True, next(texts), measured, next(texts))
