"""Loss, its terms, gradient norm, learning rate and speed, logged every so many steps."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback


class StepLog(Callback):
    """Logs what the last step computed, every `every_n_steps` optimizer steps; the device is not asked in between."""

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._since = (0, 0.0)

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = (trainer.global_step, time.perf_counter())

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        if step % self.every_n_steps or step == self._since[0]:
            return
        values = pl_module.step_values() | {"train/steps_per_second": self._speed(step)}
        pl_module.publish(values)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def _speed(self, step: int) -> float:
        now = time.perf_counter()
        last_step, last_time = self._since
        self._since = (step, now)
        return (step - last_step) / (now - last_time)
