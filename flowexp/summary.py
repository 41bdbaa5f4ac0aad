"""The end of a job: `summary.json`, and the numbers on the screen with the place of everything else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from flowexp.runs import RunFolder

Measured = Mapping[str, tuple[Mapping[str, float], Mapping[str, Any]]]  # scalars and protocol, by measurement


def summarise(folder: RunFolder, measured: Measured, **about: Any) -> None:
    """Writes the numbers of all measurements with their protocols and `about` to `summary.json`, and prints them."""
    scalars = {key: value for numbers, _ in measured.values() for key, value in numbers.items()}
    protocol = {name: how for name, (_, how) in measured.items()}
    folder.write_json(folder.summary_file, {**about, "scalars": scalars, "protocol": protocol})
    table = Table("measured on the EMA weights", "value")
    for name, value in scalars.items():
        table.add_row(name, f"{value:.4g}")
    Console().print(table)
    print(f"curves and pictures: {folder.path / 'measurements'}")
    print(f"numbers with their protocol: {folder.summary_file}")
