"""When something is measured: every so many steps, at the end, or on request. What is measured lies elsewhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback

from flowexp.data import ImageDataModule
from flowexp.measuring.callbacks.monitor_runs import measure_now, screen_name, tell_failures
from flowexp.objectives import FlowMatching
from flowexp.records.recording import Measurement, Recorder
from flowexp.training import signals
from flowexp.training.steps import ends_a_step

_CUT_OFF = "cut_off"  # of a checkpoint: the monitors that a signal ended while they measured its step


class Monitor(Callback, ABC):
    """A callback that measures the EMA weights and records the result in the run's folder.

    Every rank takes part in a measurement (so that sharded networks and gathered metrics work); rank 0 records it. A
    signal that stops the run ends a measurement too; a resumed run makes it where it continues. One that fails on
    the way does not end the training; the error is raised when all monitors have measured at the end.

    Arguments:
        every_n_steps: optimizer steps between two measurements; None measures only at the end.
        at_end: whether to measure when training ends.
    """

    settings: str | None = None  # a hash of all that decides the measurement beside the weights; None is not known

    def __init__(self, every_n_steps: int | None = None, at_end: bool = True) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}; null measures only at the end")
        self.every_n_steps = every_n_steps
        self.at_end = at_end
        self.last_step: int | None = None
        self.latest: Measurement | None = None  # of `last_step`; None where it failed
        self.failures: list[tuple[str, Exception]] = []
        self.is_cut_off = False  # whether a signal ended the measurement of the step that training is at
        self.step = 0  # of the weights that are being measured
        self._numbers: dict[str, float] = {}  # the latest, which callbacks may watch

    @abstractmethod
    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        """Measures `module`, whose EMA weights are swapped in, in eval mode and without gradient."""

    def scalar_names(self) -> tuple[str, ...] | None:
        """The numbers that `measure` gives, for callbacks that watch one; None where they are not known beforehand."""
        return None

    def run(
        self, module: FlowMatching, datamodule: ImageDataModule, recorder: Recorder | None, step: int
    ) -> Measurement:
        """Measures now. `recorder` is None on every rank but the first."""
        self.step = step
        with module.averaged():
            measurement = self.measure(module, datamodule, module.seed)
        identity = self.identity(module)
        with signals.not_now():
            if recorder is not None:
                recorder.record(measurement, step, identity)
            self._note(step, measurement)
        return measurement

    def take(self, measurement: Measurement, step: int) -> None:
        """Has the measurement of `step` from the run's folder, as if it had been made now."""
        self._note(step, measurement)

    def fail(self, step: int, error: Exception) -> None:
        """Notes that `step` could not be measured."""
        self._note(step, None)
        self.failures.append((f"{screen_name(self)} at step {step}", error))

    def _note(self, step: int, measurement: Measurement | None) -> None:
        self.last_step, self.latest, self.is_cut_off = step, measurement, False

    def identity(self, module: FlowMatching) -> dict[str, str]:
        """What a measurement is of: hashes of the weights and of the settings; empty where these are not known."""
        return {} if self.settings is None else {"weights": module.fingerprint(), "settings": self.settings}

    # --- in a Trainer ---------------------------------------------------------------------------------------------

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Callbacks see a number until the epoch ends in which it was measured: what is old does not count as worse."""
        for name in self._numbers:
            trainer.callback_metrics.pop(name, None)

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if self.is_cut_off:  # before the run was resumed
            self._measure_on_the_way(trainer)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps and ends_a_step(trainer, batch_idx) and trainer.global_step % self.every_n_steps == 0:
            self._measure_on_the_way(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """The first monitor has all of them measure: they count how many are to come."""
        monitors = [monitor for monitor in _monitors_of(trainer) if monitor.at_end]
        if not trainer.received_sigterm and not trainer.interrupted:
            _measure_in(trainer, monitors)
        self.publish(trainer)

    def publish(self, trainer: pl.Trainer) -> None:
        """Puts the numbers of the latest measurement where callbacks watch them, the same on all processes."""
        module: Any = trainer.lightning_module
        self._numbers = trainer.strategy.broadcast({} if self.latest is None else self.latest.scalars)
        module.publish(self._numbers)

    def teardown(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        """Raises MeasuringError where a monitor has failed: all else of the training has ended."""
        if stage == "fit":
            tell_failures(_monitors_of(trainer))

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        if self.is_cut_off:
            checkpoint.setdefault(_CUT_OFF, []).append(type(self).__name__)

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        self.is_cut_off = type(self).__name__ in checkpoint.get(_CUT_OFF, [])

    def _measure_on_the_way(self, trainer: pl.Trainer) -> None:
        """Measures the step that training is at; a signal leaves that to the resumed run."""
        self.is_cut_off = self.last_step != trainer.global_step
        with suppress(signals.Stopped):  # the checkpoint of this step comes next, and ends the run
            _measure_in(trainer, [self])
        self.publish(trainer)


def _monitors_of(trainer: pl.Trainer) -> list[Monitor]:
    return [callback for callback in trainer.callbacks if isinstance(callback, Monitor)]  # type: ignore[attr-defined]


def _measure_in(trainer: pl.Trainer, monitors: list[Monitor]) -> None:
    module: Any = trainer.lightning_module
    datamodule: Any = trainer.datamodule  # type: ignore[attr-defined]
    measure_now(monitors, module, datamodule, recorder_of(trainer), trainer.global_step)


def recorder_of(trainer: pl.Trainer) -> Recorder | None:
    """The recorder of a trainer's run folder on rank 0, None elsewhere."""
    return Recorder(Path(trainer.default_root_dir), trainer.loggers) if trainer.is_global_zero else None
