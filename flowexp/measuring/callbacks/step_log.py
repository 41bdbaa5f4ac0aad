"""Loss, its terms, gradient norm, learning rate and speed, logged every so many steps."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback

from flowexp.records.csv_log import CsvLog
from flowexp.training.steps import ends_a_step, is_last_step


class StepLog(Callback):
    """Logs what a step computed, every `every_n_steps` optimizer steps, and of the first and the last step.

    Nothing waits for the device in between. Losses are of the whole batch, over all processes and all that a step
    accumulates, and the learning rate is the one that the step was taken with.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._since = (0, 0.0)
        self._is_new = True

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._since = (trainer.global_step, time.perf_counter())
        self._is_new = True

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._is_new:  # not earlier: a run that is refused leaves the curves as they are
            self._is_new = False
            for logger in trainer.loggers:
                if isinstance(logger, CsvLog):
                    logger.go_on_from(trainer.global_step)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not ends_a_step(trainer, batch_idx) or not self._is_due(trainer):
            return
        step = trainer.global_step
        values = pl_module.step_values() | {"train/steps_per_second": self._speed(step)}
        pl_module.publish(values)
        for logger in trainer.loggers:
            logger.log_metrics(values, step=step)

    def _is_due(self, trainer: pl.Trainer) -> bool:
        step = trainer.global_step
        return step == 1 or step % self.every_n_steps == 0 or is_last_step(trainer)

    def _speed(self, step: int) -> float:
        now = time.perf_counter()
        last_step, last_time = self._since
        self._since = (step, now)
        return (step - last_step) / (now - last_time)
