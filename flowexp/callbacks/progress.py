"""The progress bar of training: over all steps of the run, drawn seldom: reading a loss makes the device wait."""

from __future__ import annotations

import sys
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from flowexp.callbacks.monitor import Monitor, in_words


class Progress(ProgressBar):
    """Shows steps, speed, time left and the loss, every `every_n_steps` optimizer steps.

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

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        step = trainer.global_step
        if (
            self._bar is not None
            and (step % self.every_n_steps == 0 or step == self.total_steps)
            and step > self._bar.n
        ):
            self._bar.set_postfix(loss=f"{float(pl_module.latest['loss']):.4f}", refresh=False)
            self._bar.update(step - self._bar.n)
        if self._bar is not None and step == self.total_steps:
            self._close()
            _announce(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _announce(trainer: pl.Trainer) -> None:
    """Says what is measured at the end, which may take longer than a bar at 100 % lets one expect."""
    monitors = [in_words(c) for c in trainer.callbacks if isinstance(c, Monitor) and c.at_end]  # type: ignore[attr-defined]
    if monitors:
        print(f"measuring: {', '.join(monitors)}", file=sys.stderr)
