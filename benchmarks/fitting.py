"""A fit by Lightning that takes turns with other work, and says how long a step of it took."""

from __future__ import annotations

import io
import logging
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig, OmegaConf

from benchmarks.sizes import Size
from benchmarks.timing import Contestant, Timings, wait_for
from flowexp.cli.assembly.building import build_trainer
from flowexp.cli.launch import config_folder
from flowexp.data import ImageDataModule
from flowexp.measuring.callbacks.progress import Progress
from flowexp.measuring.callbacks.step_log import StepLog
from flowexp.objectives import FlowMatching
from flowexp.records.csv_log import CsvLog
from flowexp.records.run_folder import RunFolder


class TakingTurns(pl.Callback):
    """After every `num_steps` steps of the fit a bare loop has its turn; the first turns do not count.

    A turn of the fit begins where the loop's ended, within Lightning's own, and ends behind the other callbacks.
    """

    def __init__(self, bare_loop: Contestant, num_steps: int, device: torch.device) -> None:
        self.bare_loop = bare_loop
        self.num_steps = num_steps
        self.device = device
        self.seconds: dict[str, list[float]] = {"Lightning": [], "bare loop": []}
        self._started: float | None = None

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step % self.num_steps:
            return
        wait_for(self.device)
        ours, theirs = time.perf_counter(), self.bare_loop()
        if self._started is not None:
            self.seconds["Lightning"].append((ours - self._started) / self.num_steps)
            self.seconds["bare loop"].append(theirs)
        self._started = time.perf_counter()


def fit_in_turns(
    module: FlowMatching, data: ImageDataModule, bare_loop: Contestant, size: Size, rounds: int, folder: Path
) -> Timings:
    """Seconds of a step of one long fit, "Lightning", and of one of the "bare loop", one number per round.

    The Trainer, loggers and callbacks are those of `flowexp.train`, without checkpoints and monitors. The training
    curves and the bar are written once in every turn.
    """
    num_steps = size.turn_steps
    turns, last_step = TakingTurns(bare_loop, num_steps, size.device), num_steps * (rounds + 1)
    callbacks = [StepLog(num_steps), Progress(last_step, num_steps), turns]
    with silence():
        config, logger = trainer_config(size, last_step), CsvLog(folder)
        build_trainer(config, RunFolder(folder), [logger], callbacks).fit(module, datamodule=data)
    return Timings(turns.seconds)


def trainer_config(size: Size, max_steps: int) -> DictConfig:
    """The part of a run's config that `build_trainer` reads: that of conf/, but for its length and no checkpoints."""
    conf = config_folder()
    changes = {
        "accelerator": "cpu" if size.device.type == "cpu" else "gpu",
        "precision": size.precision,
        "max_steps": max_steps,
        "enable_checkpointing": False,
    }
    trainer = OmegaConf.merge(OmegaConf.load(conf / "trainer" / "default.yaml"), changes)
    return OmegaConf.create({"trainer": trainer, "strategy": {}, "log_every_n_steps": size.turn_steps})


@contextmanager
def silence() -> Iterator[None]:
    """Within it Lightning says nothing; the bar is drawn, but nobody sees it."""
    logger = logging.getLogger("pytorch_lightning")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stderr(io.StringIO()), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
