"""The progress bar of training: refreshed seldom, because reading a loss makes the device wait."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import TQDMProgressBar


class Progress(TQDMProgressBar):
    """Shows steps, speed, time left and the loss, refreshed every `every_n_steps` batches."""

    def __init__(self, every_n_steps: int = 50) -> None:
        super().__init__(refresh_rate=every_n_steps)

    def get_metrics(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> dict[str, Any]:
        latest = pl_module.latest  # read only when the bar is drawn
        return {"loss": f"{float(latest['loss']):.4f}"} if latest else {}
