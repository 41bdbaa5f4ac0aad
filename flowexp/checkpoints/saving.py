"""When a run is saved: where a resume is exact, and before a run that is asked to stop ends."""

from __future__ import annotations

import logging
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

from flowexp.checkpoints.files import CheckpointError, verify_checkpoint
from flowexp.checkpoints.folder import list_checkpoints, path_of, prepare, step_of

log = logging.getLogger(__name__)

STDERR = 2
_COPIES = 4  # weights, their EMA and AdamW's two moments


class StepCheckpoint(Checkpoint):
    """Saves the run every so many optimizer steps, at its end, and when it is asked to stop (SIGTERM or Ctrl-C).

    A checkpoint is taken when a batch is over, after the optimizer has stepped and every other callback has run:
    resumed, the run goes on with the next batch as if nothing had happened. A signal is answered by a line at once, and
    ends the run after the step it arrives in, on every process at the same one, with exit status 128 + signal (143 for
    SIGTERM, 130 for Ctrl-C). A second Ctrl-C does not wait: Lightning ends the run, unsaved, with status 1. Before the
    first step, the folder must be writable and have room, or the run is refused. A callback that stops training must do
    so by the end of a batch for the last steps to be saved.

    Arguments:
        folder: where `step_00001000.ckpt` and its like go.
        every_n_steps: optimizer steps between two checkpoints.
        keep: how many of the newest stay; an older one is removed only after the newer one is on the disk.
        keep_every_n_steps: checkpoints at multiples of it stay for good.
    """

    def __init__(
        self, folder: str | Path, every_n_steps: int = 1000, keep: int = 2, keep_every_n_steps: int | None = None
    ) -> None:
        _check_positive(every_n_steps=every_n_steps, keep=keep, keep_every_n_steps=keep_every_n_steps)
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.keep_every_n_steps = keep_every_n_steps
        self._signal: int | None = None
        self._answers = True  # of several processes, which all get a terminal's Ctrl-C, the first
        self._seen = self._saved = 0  # optimizer steps at the last batch's end, and in the newest checkpoint
        self._tried_to_load = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signal, self._answers = None, trainer.is_global_zero
        self._seen = self._saved = trainer.global_step
        self._tried_to_load = False
        _on_first_rank(trainer, lambda: prepare(self.folder, _bytes_needed(pl_module, self.folder, self.keep)))
        self._listen()

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self._seen:
            return  # between two optimizer steps: a checkpoint would lack the gradients accumulated so far
        self._seen = trainer.global_step
        stop = self._is_asked_to_stop(trainer)
        if stop or self._seen % self.every_n_steps == 0 or _is_last_batch(trainer):
            self._save(trainer)
        if stop:
            self._exit()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """EarlyStopping ends a training here, after the batch's end: the last steps of it are saved as well."""
        if trainer.should_stop and self._saved < trainer.global_step:
            self._save(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # No saving here: resumed from the end of an epoch, Lightning gives its next batch the closed epoch's numbers.
        if self._saved < trainer.global_step:
            log.warning("training was ended after step %d, the newest checkpoint is step %d", self._seen, self._saved)
        if self._is_asked_to_stop(trainer):
            self._exit()

    def _is_asked_to_stop(self, trainer: pl.Trainer) -> bool:
        """Whether any process got a signal."""
        return trainer.strategy.reduce_boolean_decision(self._signal is not None or trainer.received_sigterm, all=False)

    def _exit(self) -> NoReturn:
        asked = signal.Signals(self._signal or signal.SIGTERM)
        log.warning("%s: stopping after step %d, which is saved", asked.name, self._saved)
        raise SystemExit(128 + asked)

    def _save(self, trainer: pl.Trainer) -> None:
        self._saved = trainer.global_step
        path = path_of(self.folder, self._saved)
        trainer.save_checkpoint(path, weights_only=False)  # the whole run, optimizer and loops included
        if not self._tried_to_load:  # what cannot be loaded should be known at the first checkpoint, not after a crash
            _on_first_rank(trainer, lambda: verify_checkpoint(path))
            self._tried_to_load = True
        if trainer.is_global_zero:
            self._remove_old()

    def _remove_old(self) -> None:
        """Checkpoints beyond this step, left by a run resumed from before them, are not counted and not touched."""
        reached = [path for path in list_checkpoints(self.folder) if step_of(path) <= self._saved]
        for path in reached[: -self.keep]:
            if self.keep_every_n_steps is None or step_of(path) % self.keep_every_n_steps:
                path.unlink(missing_ok=True)

    def _listen(self) -> None:
        """Takes the two signals over: Lightning's handler would start a collective wherever the signal finds it.

        At the end of fit, Lightning gives back the handlers that it had found, for these signals too.
        """
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, self._on_signal)
            signal.signal(signal.SIGINT, self._on_signal)

    def _on_signal(self, signum: int, frame: FrameType | None) -> None:
        if signum == signal.SIGINT and self._signal is not None:
            raise KeyboardInterrupt
        if self._signal is None and self._answers:
            now = "; Ctrl-C again stops at once" if signum == signal.SIGINT else ""
            text = f"\n{signal.Signals(signum).name}: stops after this step and saves it in {self.folder}{now}\n"
            os.write(STDERR, text.encode())  # not print: the signal may have come while something was printed
        self._signal = signum


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _bytes_needed(module: nn.Module, folder: Path, keep: int) -> int:
    """Room for `keep` checkpoints and the one being written, less what is there already."""
    one = sum((_COPIES if p.requires_grad else 1) * p.numel() * p.element_size() for p in module.parameters())
    held = sum(path.stat().st_size for path in list_checkpoints(folder)[-keep:])
    return max(one, (keep + 1) * one - held)


def _is_last_batch(trainer: pl.Trainer) -> bool:
    """Whether training ends with this batch. Later, when the epoch is closed, a longer run could not go on from it."""
    last_epoch = trainer.max_epochs is not None and trainer.current_epoch + 1 == trainer.max_epochs
    return trainer.should_stop or trainer.global_step == trainer.max_steps or (last_epoch and trainer.is_last_batch)


def _on_first_rank(trainer: pl.Trainer, check: Callable[[], None]) -> None:
    """Runs `check` on the first process, and raises its CheckpointError on all: none is left waiting for the others."""
    problem = None
    if trainer.is_global_zero:
        try:
            check()
        except CheckpointError as error:
            problem = str(error)
    problem = trainer.strategy.broadcast(problem)
    if problem:
        raise CheckpointError(problem)
