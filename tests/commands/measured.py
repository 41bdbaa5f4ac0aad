"""Monitors that tests of commands put into real runs, as `+callbacks.good._target_=measured.Good`."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.records.recording import Measurement


class Good(Monitor):
    """Notes in `FOLDER/measured.txt` that it measures."""

    name = "good"

    def __init__(self, folder: str, **when: Any) -> None:
        super().__init__(**when)
        self.folder = Path(folder)

    def measure(self, module: Any, datamodule: Any, seed: int) -> Measurement:
        with (self.folder / "measured.txt").open("a") as file:
            file.write(f"{self.name} {self.step}\n")
        return Measurement(self.name, {f"{self.name}/x": 1.0})


class Late(Good):
    """The same under another name."""

    name = "late"


class Broken(Good):
    """Fails until `FOLDER/mended` is there."""

    name = "broken"

    def measure(self, module: Any, datamodule: Any, seed: int) -> Measurement:
        if not (self.folder / "mended").exists():
            raise OSError(30, "Read-only file system", "data")
        return super().measure(module, datamodule, seed)


class Stopping(Good):
    """Gets a signal while it measures, until `FOLDER/mended` is there."""

    name = "stopping"

    def measure(self, module: Any, datamodule: Any, seed: int) -> Measurement:
        if not (self.folder / "mended").exists():
            os.kill(os.getpid(), signal.SIGTERM)
        return super().measure(module, datamodule, seed)
