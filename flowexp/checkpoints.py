"""Checkpoints that can be trusted: written whole or not at all, verified before use, taken where a resume is exact."""

from __future__ import annotations

import logging
import os
import re
import shutil
import signal
import threading
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
from lightning_fabric.plugins.io.torch_io import TorchCheckpointIO
from pytorch_lightning.callbacks import Checkpoint
from torch import nn

log = logging.getLogger(__name__)

_NAME = re.compile(r"step_(\d{8,})\.ckpt")
_PARTIAL = ".partial"  # what a save writes before the checkpoint bears its name
_FOLDER = 0x10  # the MS-DOS attribute: torch reads a record that has it, by a flipped bit, as an empty folder
_COPIES = 4  # weights, their EMA and AdamW's two moments


class CheckpointError(RuntimeError):
    """A checkpoint that cannot be written, or cannot be trusted."""


class AtomicCheckpointIO(TorchCheckpointIO):
    """Lightning's door to checkpoint files: a kill at any instant leaves the old file or the new one, never half.

    The bytes go into a file beside the target (the same filesystem, so that the rename is atomic) and to the disk
    before it takes the target's name. Loading verifies the file and never runs code from it.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any | None = None) -> None:
        """Writes `checkpoint` to `path`. Raises CheckpointError with the file that was there before left intact."""
        path = Path(path)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            _write_whole(checkpoint, path)
        except (OSError, RuntimeError) as error:
            cause = _os_error_behind(error)
            if cause is None:
                raise
            raise CheckpointError(
                f"cannot save {path}: {cause.strerror}. Earlier checkpoints are intact: make room (or the folder "
                "writable) and resume"
            ) from error

    def load_checkpoint(
        self, path: str | Path, map_location: Any = "cpu", weights_only: bool | None = None
    ) -> dict[str, Any]:
        """The verified content of `path`; `weights_only` is accepted for Lightning and always true."""
        return load_checkpoint(path, map_location)


def load_checkpoint(path: str | Path, map_location: Any = "cpu") -> dict[str, Any]:
    """The content of a checkpoint whose bytes are those that were written; tensors and plain containers only.

    Raises:
        FileNotFoundError: there is no such file.
        CheckpointError: the file is damaged, or holds anything that would have to run code to be loaded.
    """
    path = Path(path)
    _check_bytes(path)
    return _load(path, map_location=map_location)


def verify_checkpoint(path: str | Path) -> None:
    """Raises as `load_checkpoint` does, without reading the tensors into memory."""
    path = Path(path)
    _check_bytes(path)
    _load(path, map_location="cpu", mmap=True)


def step_of(path: Path) -> int:
    """The number of optimizer steps in a checkpoint, from its name `step_00001000.ckpt`."""
    match = _NAME.fullmatch(path.name)
    assert match, path
    return int(match[1])


def list_checkpoints(folder: str | Path) -> list[Path]:
    """The checkpoints in `folder`, the oldest step first; whether they are whole is not looked at."""
    return sorted((path for path in Path(folder).glob("step_*.ckpt") if _NAME.fullmatch(path.name)), key=step_of)


def latest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint in `folder` with the most steps among those that verify; the others are named in a warning."""
    for path in reversed(list_checkpoints(folder)):
        try:
            verify_checkpoint(path)
        except CheckpointError as damage:
            log.warning("%s: passed over for the checkpoint before it", damage)
        else:
            return path
    return None


class StepCheckpoint(Checkpoint):
    """Saves the run every so many optimizer steps, at its end, and when it is asked to stop (SIGTERM or Ctrl-C).

    A checkpoint is taken when a batch is over, after the optimizer has stepped and every other callback has run:
    resumed, the run goes on with the next batch as if nothing had happened. A signal ends the run after the step it
    arrives in, on every process at the same one, with exit status 128 + signal (143 for SIGTERM, 130 for Ctrl-C; a
    second Ctrl-C does not wait). Before the first step, the folder must be writable and have room, or the run is
    refused. A callback that stops training must do so by the end of a batch for the last steps to be saved.

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
        self._seen = self._saved = 0  # optimizer steps at the last batch's end, and in the newest checkpoint
        self._tried_to_load = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self._signal = None
        self._seen = self._saved = trainer.global_step
        self._tried_to_load = False
        _on_first_rank(trainer, lambda: _prepare(self.folder, _bytes_needed(pl_module, self.folder, self.keep)))
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
        path = self.folder / f"step_{self._saved:08d}.ckpt"
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
        self._signal = signum


def _check_positive(**counts: int | None) -> None:
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ValueError(f"{name} must be at least 1, got {value}")


# --- writing ---------------------------------------------------------------------------------------------------------


def _write_whole(checkpoint: dict[str, Any], path: Path) -> None:
    partial = path.with_name(f".{path.name}.{os.getpid()}{_PARTIAL}")
    try:
        with open(partial, "wb") as file:  # a file, not a name: torch then passes the system's error on
            torch.save(checkpoint, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    """Makes the new name itself survive a power cut."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _os_error_behind(error: BaseException | None) -> OSError | None:
    """torch wraps what the system said: a full disk arrives as "unexpected pos"."""
    while error is not None and not isinstance(error, OSError):
        error = error.__cause__ or error.__context__
    return error


def _prepare(folder: Path, needed: int) -> None:
    """Makes the folder, removes what killed saves left in it, and tries whether it can be written to and has room."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for orphan in folder.glob(f".*{_PARTIAL}"):
            orphan.unlink(missing_ok=True)
        probe = folder / f".probe{_PARTIAL}"
        probe.write_bytes(b"flowexp")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        raise CheckpointError(
            f"cannot write checkpoints to {folder}: {error.strerror}. Choose another folder"
        ) from error
    if free < needed:
        raise CheckpointError(
            f"the checkpoints need about {needed / 1e9:.1f} GB in {folder}, where {free / 1e9:.1f} GB are left: "
            "make room, or choose another folder"
        )


def _bytes_needed(module: nn.Module, folder: Path, keep: int) -> int:
    """Room for `keep` checkpoints and the one being written, less what is there already."""
    one = sum((_COPIES if p.requires_grad else 1) * p.numel() * p.element_size() for p in module.parameters())
    held = sum(path.stat().st_size for path in list_checkpoints(folder)[-keep:])
    return max(one, (keep + 1) * one - held)


# --- reading ---------------------------------------------------------------------------------------------------------


def _check_bytes(path: Path) -> None:
    """Compares every record with the CRC-32 that torch wrote beside it, which torch itself does not on loading."""
    if not path.exists():
        raise FileNotFoundError(f"no checkpoint at {path}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip() or next(
                (r.filename for r in archive.infolist() if r.external_attr & _FOLDER), None
            )
    except Exception as error:  # a flipped bit can make zipfile stumble in many ways
        raise CheckpointError(f"{path} is damaged ({error})") from error
    if damaged:
        raise CheckpointError(f"{path} is damaged (its record {damaged} differs from what was written)")


def _load(path: Path, **how: Any) -> dict[str, Any]:
    try:
        return torch.load(path, weights_only=True, **how)
    except Exception as error:
        reason = str(error).split("\n")[0]
        raise CheckpointError(
            f"{path} is refused: it must hold tensors and plain containers only, nothing that runs code ({reason})"
        ) from error


# --- the trainer -----------------------------------------------------------------------------------------------------


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
