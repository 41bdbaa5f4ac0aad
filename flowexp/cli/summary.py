"""The end of a job: `summary.json`, and the numbers on the screen with the place of everything else."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.table import Table

from flowexp.cli.terminal import console
from flowexp.records.files import atomic
from flowexp.records.protocol_card import cards_of
from flowexp.records.run_folder import RunFolder

Measured = Mapping[str, tuple[Mapping[str, float], Mapping[str, Any]]]  # scalars and protocol, by measurement


def summarise(folder: RunFolder, measured: Measured, **about: Any) -> None:
    """Writes the numbers of all measurements with their protocols and `about` to `summary.json`, and prints them."""
    scalars = {key: value for numbers, _ in measured.values() for key, value in numbers.items()}
    protocol = {name: how for name, (_, how) in measured.items()}
    summary = {**about, "scalars": scalars, "protocol": protocol}
    atomic.write_json(folder.summary_file, summary)
    cards = cards_of(summary)
    table = Table(f"measured on {_weights(protocol)}", "value", *(["card"] if cards else []))
    for name, value in scalars.items():
        table.add_row(name, f"{value:.4g}", *([cards.get(name, "")] if cards else []))
    if scalars:
        console().print(table)
    for what, where in _places(folder.path).items():
        print(f"{what}: {where}")


def _weights(protocol: Mapping[str, Mapping[str, Any]]) -> str:
    """`the EMA weights`; with another choice of averages, which."""
    names = {str(how["weights"]) for how in protocol.values() if "weights" in how} or {"ema"}
    words = {"raw": "the weights as trained", "ema": "the EMA weights"}
    return " and ".join(
        words.get(name, f"the EMA weights of decay {name.removeprefix('ema ')}") for name in sorted(names)
    )


def _places(folder: Path) -> dict[str, str]:
    """Where the results lie, as they can be typed; and how to send what W&B wrote offline."""
    short = folder.relative_to(Path.cwd()) if folder.is_relative_to(Path.cwd()) else folder
    in_csv = "training curves" if (folder / "checkpoints").is_dir() else "numbers as CSV"
    places = {"curves and pictures": "measurements", "checkpoints": "checkpoints", in_csv: "csv"}
    found = {what: str(short / name) for what, name in places.items() if (folder / name).is_dir()}
    found["numbers with their protocol"] = str(short / "summary.json")
    if any(folder.glob("wandb/offline-run-*")):
        found["W&B was offline; to send it"] = f"wandb sync {shlex.quote(str(short))}/wandb/offline-run-*"
    return found
