"""The progress of training over all steps of the run: a bar, or a line each in a log. Reading a loss costs a wait."""

from __future__ import annotations

import sys
import time
from contextlib import suppress
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar
from tqdm import tqdm

from flowexp.training.steps import ends_a_step, is_last_step


class Progress(ProgressBar):
    """Shows steps, speed, time left and the loss, of the first step, every `every_n_steps` ones, and of the last.

    By hand and not Lightning's TQDMProgressBar: that counts the batches of one epoch, and not the steps of the run from
    where it was resumed; it draws on stdout, where results belong; and a terminal that is closed would end the run.

    Arguments:
        total_steps: optimizer steps of the whole run.
        every_n_steps: steps between two drawings.
        as_bar: draw a bar; else print a line each, as a log needs. None draws one on a terminal alone.
    """

    def __init__(self, total_steps: int, every_n_steps: int = 50, as_bar: bool | None = None) -> None:
        super().__init__()
        self.total_steps = total_steps
        self.every_n_steps = every_n_steps
        self.as_bar = sys.stderr.isatty() if as_bar is None else as_bar
        self._bar: tqdm | None = None
        self._began = (0, 0.0)  # step and time of this start, after its first step, which is slow

    def disable(self) -> None:  # Lightning calls it on every rank but the first
        self.every_n_steps = 0

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._began = (trainer.global_step, time.perf_counter())
        if self.every_n_steps and self.as_bar:
            self._bar = tqdm(total=self.total_steps, initial=trainer.global_step, desc="training", unit="step")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not self.every_n_steps or not ends_a_step(trainer, batch_idx):
            return
        step, is_last = trainer.global_step, is_last_step(trainer)
        if step == 1 or step % self.every_n_steps == 0 or is_last:
            self._show(step, float(pl_module.latest["loss"]))
        if is_last:
            self._close()

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._close()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        self._close()

    def _show(self, step: int, loss: float) -> None:
        try:
            if self._bar is not None:
                self._bar.set_postfix(loss=f"{loss:.4f}", refresh=False)
                self._bar.update(step - self._bar.n)
            elif not self.as_bar:
                print(self._line(step, loss), file=sys.stderr, flush=True)
        except OSError:  # a terminal that was closed, or a full disk behind a log: no reason to lose the step
            self._bar, self.as_bar = None, True

    def _line(self, step: int, loss: float) -> str:
        """`step 50 of 600, loss 1.03, 24 steps/s, 0:23 left`."""
        first, since = self._began
        now = time.perf_counter()
        if step == 1:
            self._began = (1, now)
            return f"step 1 of {self.total_steps:,}, loss {loss:.4g}"
        speed = (step - first) / max(now - since, 1e-9)
        left = tqdm.format_interval((self.total_steps - step) / speed)
        return f"step {step:,} of {self.total_steps:,}, loss {loss:.4g}, {speed:.3g} steps/s, {left} left"

    def _close(self) -> None:
        if self._bar is not None:
            with suppress(OSError):
                self._bar.close()
            self._bar = None
