"""The progress bar of training: over all steps of the run, drawn seldom: reading a loss makes the device wait."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from flowexp.training.steps import ends_a_step


class Progress(ProgressBar):
    """Shows steps, speed, time left and the loss, every `every_n_steps` optimizer steps.

    By hand and not Lightning's TQDMProgressBar: that counts the batches of one epoch, and not the steps of the run from
    where it was resumed; it draws on stdout, where results belong; and a terminal that is closed would end the run.

    Arguments:
        total_steps: optimizer steps of the whole run.
        every_n_steps: steps between two drawings.
    """

    def __init__(self, total_steps: int, every_n_steps: int = 50) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.every_n_steps = every_n_steps
        self._bar: tqdm | None = None

    def disable(self) -> None:  # Lightning calls it on every rank but the first
        self.every_n_steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.every_n_steps:
            self._bar = tqdm(total=self.total_steps, initial=trainer.global_step, desc="training", unit="step")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        step = trainer.global_step
        if self._bar is None or not ends_a_step(trainer, batch_idx):
            return
        if step % self.every_n_steps == 0 or step == self.total_steps:
            self._draw(step, float(pl_module.latest["loss"]))
        if step == self.total_steps:
            self._close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _draw(self, step: int, loss: float) -> None:
        assert self._bar is not None
        try:
            self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
            self._bar.update(step - self._bar.n)
        except OSError:  # a terminal that was closed, or a full disk behind a log: no reason to lose the step
            self._bar = None

    def _close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None
