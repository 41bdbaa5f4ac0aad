"""The training curves of a run: one CSV file, a row for each step, which a resumed run goes on with."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only

from flowexp.records.files import atomic

Row = dict[str, Any]


class CsvLog(Logger):
    """Numbers by step in `csv/version_0/metrics.csv`, there as soon as they are logged, also for a run that is killed.

    Numbers of one step share a row, whenever they come; those of a step that is logged again replace the earlier ones.
    """

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder
        self.file = folder / "csv" / "version_0" / "metrics.csv"
        self._columns: list[str] | None = None  # of the file; None while it has not been read
        self._last = -math.inf  # the last step in it

    @property
    def name(self) -> str:
        return "csv"

    @property
    def version(self) -> int:
        return 0

    @property
    def save_dir(self) -> str:
        return str(self.folder)

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """They are in `config.yaml`."""

    @rank_zero_only
    def log_metrics(self, metrics: Mapping[str, Any], step: int | None = None) -> None:
        """Adds numbers to the row of `step`."""
        assert step is not None
        if self._columns is None:
            self._write(_rows_of(self._files()))
        assert self._columns is not None
        row = {"step": step, **{name: _plain(value) for name, value in metrics.items()}}
        if step > self._last and set(row) <= set(self._columns):
            self._append(row)
        else:
            self._write(_merged([*_rows_of([self.file]), row]))

    @rank_zero_only
    def go_on_from(self, step: int) -> None:
        """Drops the rows beyond `step`, from which training goes on: they are of steps that will be taken again."""
        if files := self._files():
            self._write([row for row in _rows_of(files) if float(row["step"]) <= step])
        for file in files:
            if file != self.file:  # of a version that began a file at each start
                _remove(file)

    @rank_zero_only
    def save(self) -> None:
        """Waits until all rows have reached the disk."""
        if self.file.exists():
            with self.file.open("rb") as file:
                os.fsync(file.fileno())

    def _files(self) -> list[Path]:
        """The files of this run, in the order of its starts."""
        return sorted(self.folder.glob("csv/version_*/metrics.csv"), key=lambda path: _number(path.parent.name))

    def _append(self, row: Row) -> None:
        with self.file.open("a", newline="") as file:
            csv.DictWriter(file, self._columns or [], restval="", lineterminator="\n").writerow(row)
        self._last = row["step"]

    def _write(self, rows: list[Row]) -> None:
        self._columns = list(dict.fromkeys(["step", *(name for row in rows for name in row)]))
        self._last = max((float(row["step"]) for row in rows), default=-math.inf)
        with atomic.replacing(self.file) as partial, partial.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns, restval="", lineterminator="\n")
            writer.writeheader()
            writer.writerows(rows)


def _rows_of(files: Iterable[Path]) -> list[Row]:
    """The rows of files by step, as text without the empty cells; a line that a kill has torn is left out."""
    return _merged(row for file in files for row in _whole_rows(file))


def _whole_rows(file: Path) -> Iterable[Row]:
    if not file.exists():
        return
    with file.open(newline="", errors="replace") as opened:
        text = opened.read()
    whole = text[: text.rfind("\n") + 1].replace("\0", "")
    for cells in csv.DictReader(whole.splitlines()):
        if None not in cells and None not in cells.values() and math.isfinite(_as_float(cells.get("step", ""))):
            yield {name: cell for name, cell in cells.items() if cell != ""}


def _merged(rows: Iterable[Row]) -> list[Row]:
    """One row for each step, in their order; of a number that comes twice, the later one."""
    by_step: dict[float, Row] = {}
    for row in rows:
        step = float(row["step"])
        by_step[step] = {**by_step.get(step, {}), **row}
    return [by_step[step] for step in sorted(by_step)]


def _plain(value: Any) -> Any:
    return value.item() if hasattr(value, "item") else value


def _as_float(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _number(version: str) -> int:
    digits = version.removeprefix("version_")
    return int(digits) if digits.isdigit() else -1


def _remove(file: Path) -> None:
    file.unlink(missing_ok=True)
    with suppress(OSError):  # something else lies there too
        file.parent.rmdir()
