"""When a run is saved: where a resume is exact, and when a signal stops it."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

from flowexp.training import signals
from flowexp.training.checkpoints.archives import CheckpointError
from flowexp.training.checkpoints.files import verify_checkpoint
from flowexp.training.checkpoints.folder import (
    list_checkpoints,
    path_of,
    prepare,
    remove_checkpoint,
    size_of,
    step_of,
)
from flowexp.training.steps import ends_a_step, is_last_step

log = logging.getLogger(__name__)

IN_BACKGROUND = {"in_background": True}  # storage options of a checkpoint that is written while training goes on
_COPIES = 4  # weights, their EMA and AdamW's two moments


class StepCheckpoint(Checkpoint):
    """Saves the run every so many optimizer steps, at its end, and when a signal stops it.

    A checkpoint is taken when a batch is over, after the optimizer has stepped and every other callback has run:
    resumed, the run goes on with the next batch as if nothing had happened. A signal (SIGTERM, Ctrl-C, SIGHUP of a
    closed terminal, SIGUSR1 of SLURM) is answered by a line at once, and ends the run after the step it arrives in, on
    every process at the same one, with exit status 128 + signal (143 for SIGTERM, 130 for Ctrl-C). A second Ctrl-C does
    not wait: Lightning ends the run, unsaved, with status 1. Before the first step, the folder must be writable and
    have room, or the run is refused. A callback that stops training must do so by the end of a batch for the last steps
    to be saved.

    By hand and not Lightning's ModelCheckpoint, which answers no signal, looks for no room before the first step, and
    keeps either the newest few or those of every so many steps. It serves for the best of a number, see
    `flowexp.measuring.callbacks.best`.

    Arguments:
        folder: where `step_00001000.ckpt` and its like go.
        every_n_steps: optimizer steps between two checkpoints.
        keep: how many of the newest stay; an older one is removed only after the newer one is on the disk.
        keep_every_n_steps: a checkpoint is saved at each multiple of it too, and stays for good.
        note_end: is given the trainer as soon as the last step is saved, on the first process.
        sharded: whether a checkpoint is a folder to which each process writes its share while training goes on, until
            the next one or the end of training; for FSDP alone. The first one is waited for and verified.
    """

    def __init__(
        self,
        folder: str | Path,
        every_n_steps: int = 1000,
        keep: int = 2,
        keep_every_n_steps: int | None = None,
        note_end: Callable[[pl.Trainer], None] | None = None,
        sharded: bool = False,
    ) -> None:
        _check_positive(every_n_steps=every_n_steps, keep=keep, keep_every_n_steps=keep_every_n_steps)
        self.folder = Path(folder)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.keep_every_n_steps = keep_every_n_steps
        self.note_end = note_end
        self.sharded = sharded
        self._saved = 0  # optimizer steps in the newest checkpoint
        self._tried_to_load = False

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        if not self.sharded:
            return
        if not hasattr(trainer.strategy, "shard_checkpoints"):
            raise ValueError(
                "sharded checkpoints need flowexp.training.fsdp.FullySharded, and the strategy is "
                f"{type(trainer.strategy).__name__}: choose it, or leave sharded out"
            )
        trainer.strategy.shard_checkpoints()

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._saved = trainer.global_step
        self._tried_to_load = False
        _on_first_rank(trainer, lambda: prepare(self.folder, _bytes_needed(pl_module, self.folder, self.keep)))
        # Lightning's handler, which this replaces, would start a collective wherever the signal finds it. At the end of
        # fit, Lightning gives back the handlers from before it.
        signals.forget()
        signals.listen(f"stops after this step and saves it in {self.folder}", answers=trainer.is_global_zero)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if not ends_a_step(trainer, batch_idx):
            return  # a checkpoint would lack the gradients accumulated so far
        stop, is_last = self._is_asked_to_stop(trainer), is_last_step(trainer)
        if stop or is_last or self._is_due(trainer.global_step):
            self._save(trainer, is_last=stop or is_last)
        if is_last:
            self._note_end(trainer)
        if stop:
            self._exit()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """EarlyStopping ends a training here, after the batch's end: the last steps of it are saved as well."""
        if trainer.should_stop and self._saved < trainer.global_step:
            self._save(trainer, is_last=True)
        if trainer.should_stop:
            self._note_end(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        # No saving here: resumed from the end of an epoch, Lightning gives its next batch the closed epoch's numbers.
        if self._saved < trainer.global_step:
            log.warning(
                "training was ended after step %d, the newest checkpoint is step %d", trainer.global_step, self._saved
            )
        if self._is_asked_to_stop(trainer):
            self._exit()
        signals.forget()

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        signals.forget()

    def _note_end(self, trainer: pl.Trainer) -> None:
        if self.note_end is not None and trainer.is_global_zero:
            self.note_end(trainer)

    def _is_due(self, step: int) -> bool:
        return any(step % n == 0 for n in (self.every_n_steps, self.keep_every_n_steps) if n is not None)

    def _is_asked_to_stop(self, trainer: pl.Trainer) -> bool:
        """Whether any process got a signal."""
        asked = signals.asked() is not None or trainer.received_sigterm
        return trainer.strategy.reduce_boolean_decision(asked, all=False)

    def _exit(self) -> NoReturn:
        asked = signals.asked() or signal.SIGTERM
        log.warning("%s: stopping after step %d, which is saved", asked.name, self._saved)
        raise signals.Stopped(128 + asked)

    def _save(self, trainer: pl.Trainer, is_last: bool) -> None:
        self._saved = trainer.global_step
        path = path_of(self.folder, self._saved)
        for logger in trainer.loggers:
            logger.save()  # the curves reach the disk before the step that they lead to
        how = IN_BACKGROUND if self.sharded and self._tried_to_load and not is_last else None
        trainer.save_checkpoint(path, weights_only=False, storage_options=how)  # the whole run, optimizer and loops too
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
                remove_checkpoint(path)


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


def _bytes_needed(module: nn.Module, folder: Path, keep: int) -> int:
    """Room for `keep` checkpoints and the one being written, less what is there already."""
    one = sum((_COPIES if p.requires_grad else 1) * p.numel() * p.element_size() for p in module.parameters())
    held = sum(size_of(path) for path in list_checkpoints(folder)[-keep:])
    return max(one, (keep + 1) * one - held)


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
