"""When something is measured: every so many steps, at the end, or on request. What is measured lies elsewhere."""

from __future__ import annotations

import re
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback

from flowexp.data import ImageDataModule
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement, Recorder


class Monitor(Callback, ABC):
    """A callback that measures the EMA weights and records the result in the run's folder.

    Every rank takes part in a measurement (so that sharded networks and gathered metrics work); rank 0 records it.

    Arguments:
        every_n_steps: optimizer steps between two measurements; None measures only at the end.
        at_end: whether to measure when training ends.
    """

    def __init__(self, every_n_steps: int | None = None, at_end: bool = True) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}; null measures only at the end")
        self.every_n_steps = every_n_steps
        self.at_end = at_end
        self.last_step: int | None = None
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
        if recorder is not None:
            recorder.record(measurement, step)
        self.last_step = step
        return measurement

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Callbacks see a number until the epoch ends in which it was measured: what is old does not count as worse."""
        for name in self._numbers:
            trainer.callback_metrics.pop(name, None)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.every_n_steps and trainer.global_step % self.every_n_steps == 0:
            self._run_in(trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self.at_end and not trainer.received_sigterm and not trainer.interrupted:
            self._run_in(trainer)
        trainer.lightning_module.publish(self._numbers)  # type: ignore[operator]

    def _run_in(self, trainer: pl.Trainer) -> None:
        if self.last_step == trainer.global_step:  # gradient accumulation, or a periodic step that is also the end
            return
        module: Any = trainer.lightning_module
        measured = self.run(module, trainer.datamodule, recorder_of(trainer), trainer.global_step)  # type: ignore[attr-defined]
        self._numbers = trainer.strategy.broadcast(measured.scalars)  # all processes compare the same numbers
        module.publish(self._numbers)


def recorder_of(trainer: pl.Trainer) -> Recorder | None:
    """The recorder of a trainer's run folder on rank 0, None elsewhere."""
    return Recorder(Path(trainer.default_root_dir), trainer.loggers) if trainer.is_global_zero else None


def measure_now(
    monitors: Iterable[Monitor],
    module: FlowMatching,
    datamodule: ImageDataModule,
    recorder: Recorder | None,
    step: int,
) -> dict[str, Measurement]:
    """Runs those monitors that have not measured `step` yet, outside a Trainer; returns the measurements by name."""
    fresh = [monitor for monitor in monitors if monitor.last_step != step]
    measurements = []
    for place, monitor in enumerate(fresh, 1):
        if recorder is not None:
            print(f"measuring {in_words(monitor)} ({place} of {len(fresh)})", file=sys.stderr)
        measurements.append(monitor.run(module, datamodule, recorder, step))
    return {measurement.name: measurement for measurement in measurements}


def in_words(monitor: Monitor) -> str:
    """What a monitor is called on the screen: `VelocityNorms` is "velocity norms", `ProbeMonitor` is "probe"."""
    name = type(monitor).__name__.removesuffix("Monitor")
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", " ", name).lower()
