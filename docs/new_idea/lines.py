"""A logger of one's own: one line of JSON for each step that is logged."""

from __future__ import annotations

import json
from argparse import Namespace
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities import rank_zero_only


class JSONLines(Logger):
    """Appends numbers to `log.jsonl`.

    Arguments:
        save_dir: its folder; flowexp gives that of the run.
        prefix: only numbers whose names begin so are written.
    """

    def __init__(self, save_dir: str, prefix: str = "") -> None:
        super().__init__()
        self.file = Path(save_dir) / "log.jsonl"
        self.prefix = prefix

    @property
    def name(self) -> str:
        return "lines"

    @property
    def version(self) -> str:
        return ""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        chosen = {name: float(value) for name, value in metrics.items() if name.startswith(self.prefix)}
        if chosen:
            with self.file.open("a") as file:
                file.write(json.dumps({"step": step, **chosen}) + "\n")

    @rank_zero_only
    def log_hyperparams(self, params: dict[str, Any] | Namespace) -> None:
        """The run's folder has them."""
