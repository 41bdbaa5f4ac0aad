"""Where a measurement goes: a table and a picture in the run's folder, numbers in the loggers."""

from __future__ import annotations

import json
import math
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from flowexp.records.figures import plot_maps, save_figure, save_image
from flowexp.records.files import atomic
from flowexp.records.tables import as_columns, read_csv, write_csv
from flowexp.records.verdict import Verdict

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pytorch_lightning.loggers import Logger
    from torch import Tensor

SERIES = ("split", "reading", "tap")  # columns that distinguish the rows of one noise level
_WORDS = ("about", "verdicts", "maps")  # of a measurement, for readers of the page
MAP = "over_steps"  # the picture of all steps, beside those of each


@dataclass(frozen=True)
class Measurement:
    """One measured thing: its numbers, the table and the picture behind them, and how it was measured.

    Arguments:
        name: what was measured, such as `probe`; it becomes a folder's name.
        scalars: numbers by key, such as `{"probe/peak": 0.81}`; the key is what loggers show.
        rows: a table in long format, one dict per row; may be empty.
        figure: a matplotlib figure, or None.
        image: a uint8 picture (H, W, C), or None.
        pictures: uint8 pictures (N, C, H, W) for a logger that shows them one by one, or None.
        protocol: everything that a reader needs to obtain the same number again.
        about: a sentence for a reader of the page: what the table shows, and in which unit.
        verdicts: what the numbers show; a plain sentence becomes a verdict.
        maps: columns of `rows` that become a heat map over (step, t) once they are measured at two steps, and what
            their colours mean.
    """

    name: str
    scalars: dict[str, float] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    figure: Figure | None = None
    image: Tensor | None = None
    pictures: Tensor | None = None
    protocol: dict[str, Any] = field(default_factory=dict)
    about: str = ""
    verdicts: Sequence[Verdict | str] = ()
    maps: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "verdicts", [Verdict.of(verdict) for verdict in self.verdicts])


@dataclass(frozen=True)
class Recorder:
    """Writes measurements below `folder` and to the loggers.

    A measurement `probe` at step 500 becomes `measurements/probe/step_00000500.csv`, `.png` and `.json`, and one
    line of `measurements.jsonl`, which is the history of the run. `measurements/probe/over_steps.png` has all steps.
    """

    folder: Path
    loggers: Sequence[Logger] = ()

    def record(self, measurement: Measurement, step: int, identity: Mapping[str, str] | None = None) -> Path:
        """Writes `measurement` and returns the path of its files, without their suffix.

        identity: hashes of what was measured and how, by which `recorded` finds it.
        """
        stem = self._stem(measurement.name, step)
        stem.parent.mkdir(parents=True, exist_ok=True)
        self._write_table(measurement, stem)
        self._write_picture(measurement, stem)
        self._write_maps(measurement, stem)
        self._append_history(measurement, step, stem, identity or {})
        self._log(measurement, step, stem)
        return stem

    def recorded(self, step: int, identity: Mapping[str, str]) -> Measurement | None:
        """What was measured at `step` with this identity, without table and picture, which lie in its files."""
        for entry in read_history(self.folder):
            is_it = entry["step"] == step and all(entry.get(name) == value for name, value in identity.items())
            if is_it and self._stem(entry["name"], step).with_suffix(".json").exists():
                self._log_scalars(entry["scalars"], step)  # the curves go on without them where a run is resumed
                words = {name: entry[name] for name in _WORDS if name in entry}
                return Measurement(entry["name"], entry["scalars"], protocol=entry["protocol"], **words)
        return None

    def _stem(self, name: str, step: int) -> Path:
        return self.folder / "measurements" / name / f"step_{step:08d}"

    def _write_table(self, measurement: Measurement, stem: Path) -> None:
        if measurement.rows:
            write_csv(stem.with_suffix(".csv"), measurement.rows)

    def _write_picture(self, measurement: Measurement, stem: Path) -> None:
        if measurement.figure is not None:
            save_figure(measurement.figure, stem.with_suffix(".png"))
        elif measurement.image is not None:
            save_image(measurement.image, stem.with_suffix(".png"))

    def _write_maps(self, measurement: Measurement, stem: Path) -> None:
        if measurement.maps and (maps := maps_over_steps(stem.parent, measurement.maps)):
            save_figure(plot_maps(maps), stem.with_name(f"{MAP}.png"))

    def _append_history(self, measurement: Measurement, step: int, stem: Path, identity: Mapping[str, str]) -> None:
        entry: dict[str, Any] = {
            "name": measurement.name,
            "step": step,
            "scalars": measurement.scalars,
            "protocol": measurement.protocol,
            **identity,
        }
        words = {name: getattr(measurement, name) for name in _WORDS}
        words["verdicts"] = [Verdict.of(verdict).data() for verdict in measurement.verdicts]
        entry |= {name: value for name, value in words.items() if value}
        atomic.write_json(stem.with_suffix(".json"), entry)
        _append_line(self.folder / "measurements.jsonl", json.dumps(entry))

    def _log(self, measurement: Measurement, step: int, stem: Path) -> None:
        self._log_scalars(measurement.scalars, step)
        for logger in self.loggers:
            if hasattr(logger, "log_image"):  # W&B has pictures and tables, CSV has not
                _log_to_wandb(logger, measurement, step, stem)

    def _log_scalars(self, scalars: Mapping[str, float], step: int) -> None:
        for logger in self.loggers if scalars else ():
            logger.log_metrics(dict(scalars), step=step)


def _append_line(path: Path, line: str) -> None:
    """Adds a line and waits until it has reached the disk; a line that was cut off before it is left alone."""
    with path.open("ab+") as file:
        is_torn = file.tell() > 0 and _last_byte(file) != b"\n"
        file.write((b"\n" if is_torn else b"") + line.encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _last_byte(file: BinaryIO) -> bytes:
    file.seek(-1, os.SEEK_END)
    return file.read(1)


def _log_to_wandb(logger: Any, measurement: Measurement, step: int, stem: Path) -> None:
    """The pictures and the table of a measurement, and the cards of its numbers."""
    name = measurement.name
    for key, path in ((name, stem.with_suffix(".png")), (f"{name}_{MAP}", stem.with_name(f"{MAP}.png"))):
        if path.exists():
            logger.log_image(key, [str(path)], step=step)
    if measurement.rows:
        columns, data = as_columns(measurement.rows)
        logger.log_table(f"{name}_table", columns=columns, data=data, step=step)
    for column, words in measurement.maps.items():
        _log_curve(logger, f"{name}/{column}_over_t", words, column, measurement.rows, step)
    if measurement.pictures is not None:
        _log_pictures(logger, f"{name}_each", measurement.pictures, step)
    if cards := measurement.protocol.get("cards"):
        logger.experiment.summary.update({f"card/{key}": card for key, card in cards.items()})


def _log_curve(logger: Any, name: str, words: str, column: str, rows: Sequence[dict[str, Any]], step: int) -> None:
    """A column over the noise level as a line plot of W&B, which shows without a workspace; a line for each series."""
    import wandb

    points = [(row, row.get(column)) for row in rows if _level(row) is not None]
    data = [
        [row["t"], value, _series_of(str(row.get("split", "")), row)]
        for row, value in points
        if isinstance(value, float | int)
    ]
    if data:
        table = wandb.Table(columns=["t", column, "line"], data=data)
        plot = wandb.plot.line(
            table, "t", column, stroke="line", title=f"{words} over the noise level t, step {step:,}"
        )
        logger.log_metrics({name: plot}, step=step)


def _log_pictures(logger: Any, name: str, pictures: Tensor, step: int) -> None:
    """Single pictures as a table of W&B, which can be sorted, filtered and compared over runs."""
    import wandb

    data = [[i, wandb.Image(picture.permute(1, 2, 0).cpu().numpy())] for i, picture in enumerate(pictures)]
    logger.log_table(name, columns=["index", "picture"], data=data, step=step)


def maps_over_steps(folder: Path, columns: Mapping[str, str]) -> dict[str, dict[tuple[int, float], float]]:
    """Values by (step, t) of the tables in `folder`, for each column and series of it; empty with fewer than two steps.

    columns: names in the tables, and what their values mean.
    Rows of training are left out: they have other levels than those of the held-out images.
    """
    tables = {int(path.stem.removeprefix("step_")): read_csv(path) for path in sorted(folder.glob("step_*.csv"))}
    if len(tables) < 2:
        return {}
    maps: dict[str, dict[tuple[int, float], float]] = {}
    for column, words in columns.items():
        for step, row in ((step, row) for step, rows in tables.items() for row in rows):
            if row.get("split") == "train" or _level(row) is None:
                continue
            if isinstance(value := row.get(column), float) and math.isfinite(value):
                maps.setdefault(_series_of(words, row), {})[step, row["t"]] = value
    return maps


def _level(row: dict[str, Any]) -> float | None:
    """The noise level of a row; None for one that belongs to none, such as a baseline on clean images."""
    level = row.get("t")
    return level if isinstance(level, int | float) else None


def _series_of(words: str, row: dict[str, Any]) -> str:
    """The label of a column and of this row among those of its level: `accuracy, linear probe, tap 4`."""
    kinds = [(kind, row[kind]) for kind in SERIES if kind in row and kind != "split"]
    series = [f"tap {cell:g}" if kind == "tap" else f"{cell} {kind}" for kind, cell in kinds]
    return ", ".join(filter(None, [words, *series]))


def read_history(folder: Path) -> list[dict[str, Any]]:
    """The run's measurements in the order of their steps; of a step measured again after a resume, the last.

    Lines that hold no measurement, as one that a full disk has cut off, are passed over with a warning.
    """
    path = folder / "measurements.jsonl"
    if not path.exists():
        return []
    lines = [line for line in path.read_bytes().split(b"\n") if line.strip()]
    entries = [entry for line in lines if (entry := _parsed(line))]
    if len(entries) < len(lines):
        damaged = len(lines) - len(entries)
        warnings.warn(f"{path}: {damaged} of {len(lines)} lines are damaged, and passed over", stacklevel=2)
    latest = {(entry["name"], entry["step"]): entry for entry in entries}
    return sorted(latest.values(), key=lambda entry: entry["step"])


def _parsed(line: bytes) -> dict[str, Any] | None:
    """A line of the history; None for one that a kill cut off, or damage made another thing of."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    kinds = {"name": str, "step": int, "scalars": dict, "protocol": dict, "verdicts": list}
    entry = {"protocol": {}, "verdicts": [], **entry} if isinstance(entry, dict) else {}
    return entry if all(isinstance(entry.get(name), kind) for name, kind in kinds.items()) else None
