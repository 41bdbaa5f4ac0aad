"""Sweeps: what each job of a Hydra multirun ended with, and the one table at the end."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig
from rich.console import Console
from rich.table import Table

from flowexp.runs import RunFolder
from flowexp.tables import write_csv

swept_folders: list[Path] = []


class NoteSweep(Callback):
    """Hydra callback that notes the folder of a finished sweep for `flowexp.launch`, which prints the table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        swept_folders.append(Path(config.hydra.sweep.dir))


@dataclass(frozen=True)
class JobResult:
    """How one job of a sweep ended."""

    overrides: list[str]
    exit_code: int

    def write(self, run: RunFolder) -> None:
        run.write_json(run.path / "job.json", asdict(self))


def print_table(sweep: Path) -> int:
    """Prints and writes (`sweep.csv`) one row per job: overrides, numbers, how it ended. Returns the exit code."""
    rows = [_row(path.parent) for path in sorted(sweep.glob("*/job.json"), key=lambda path: _job_number(path.parent))]
    columns = list(dict.fromkeys(column for row in rows for column in row))
    table = Table(title=f"sweep {sweep}")
    for column in columns:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*(_shown(row.get(column)) for column in columns))
    Console().print(table)
    if rows:
        write_csv(sweep / "sweep.csv", [{column: row.get(column) for column in columns} for row in rows])
        print(f"the same as CSV: {sweep / 'sweep.csv'}")
    return 1 if any(row["status"] != "finished" for row in rows) else 0


def _row(folder: Path) -> dict[str, Any]:
    job = json.loads((folder / "job.json").read_text())
    summary = RunFolder(folder).summary()
    status = "finished" if job["exit_code"] == 0 else f"failed ({job['exit_code']}), see log.txt"
    swept = dict(override.lstrip("+").split("=", 1) for override in job["overrides"] if "=" in override)
    return {"job": folder.name, **swept, **summary.get("scalars", {}), "status": status}


def _job_number(folder: Path) -> tuple[int, str]:
    return (int(folder.name), "") if folder.name.isdigit() else (1 << 30, folder.name)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else "" if value is None else str(value)
