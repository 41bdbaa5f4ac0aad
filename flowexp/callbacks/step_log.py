"""Loss, its terms, gradient norm, learning rate and speed, logged every so many steps."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback
from torch import Tensor

from flowexp.csv_log import CsvLog
from flowexp.steps import ends_a_step, is_last_step


class StepLog(Callback):
    """Logs what a step computed, every `every_n_steps` optimizer steps, and of the first and the last step.

    The device is not asked in between. Losses are of the whole batch, over all processes and all that a step
    accumulates, and the learning rate is the one that the step was taken with.
    """

    def __init__(self, every_n_steps: int = 50) -> None:
        self.every_n_steps = every_n_steps
        self._since = (0, 0.0)
        self._lr = 0.0
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

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, optimizer: Any) -> None:
        self._lr = optimizer.param_groups[0]["lr"]  # after the step it is the next one's

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not ends_a_step(trainer, batch_idx) or not self._is_due(trainer):
            return
        step = trainer.global_step
        values = {f"train/{name}": value for name, value in _over_processes(trainer, pl_module.latest).items()}
        values["train/lr"] = float(self._lr)
        values["train/steps_per_second"] = self._speed(step)
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


def _over_processes(trainer: pl.Trainer, values: dict[str, Tensor]) -> dict[str, float]:
    """The means over all processes, which have equally many rows; all must call it."""
    if trainer.world_size == 1:
        return {name: float(value) for name, value in values.items()}
    together = torch.stack([value.detach().double() for value in values.values()])
    means = trainer.strategy.reduce(together, reduce_op="mean")
    return dict(zip(values, means.tolist(), strict=True))
