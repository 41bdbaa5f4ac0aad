"""Short fits by Lightning that say how long a step of them took."""

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
from pytorch_lightning.loggers import CSVLogger

from benchmarks.sizes import Size
from benchmarks.timing import Contestant, wait_for
from flowexp.building import build_trainer
from flowexp.callbacks.progress import Progress
from flowexp.callbacks.step_log import StepLog
from flowexp.data import ImageDataModule
from flowexp.launch import config_folder
from flowexp.modules import FlowMatching
from flowexp.runs import RunFolder


def lightning_fit(module: FlowMatching, data: ImageDataModule, size: Size, folder: Path) -> Contestant:
    """A contestant that fits for `size.fit_steps` steps after a first one, and returns the seconds of one.

    The Trainer, loggers and callbacks are those of `flowexp.train`, without checkpoints and monitors. The training
    curves and the bar are written once within the timed steps.
    """

    def fit() -> float:
        clock = StepClock(size.fit_steps, size.device)
        callbacks = [StepLog(size.fit_steps), Progress(size.fit_steps + 1, size.fit_steps), clock]
        with silence():
            trainer = build_trainer(trainer_config(size), RunFolder(folder), [CSVLogger(folder, name="csv")], callbacks)
            trainer.fit(module, datamodule=data)
        return clock.seconds_per_step

    return fit


def trainer_config(size: Size) -> DictConfig:
    """The part of a run's config that `build_trainer` reads: that of conf/, but for its length and no checkpoints."""
    conf = config_folder()
    changes = {
        "accelerator": "cpu" if size.device.type == "cpu" else "gpu",
        "precision": size.precision,
        "max_steps": size.fit_steps + 1,
        "enable_checkpointing": False,
    }
    trainer = OmegaConf.merge(OmegaConf.load(conf / "trainer" / "default.yaml"), changes)
    return OmegaConf.create({"trainer": trainer, "strategy": OmegaConf.load(conf / "strategy" / "single.yaml")})


class StepClock(pl.Callback):
    """Takes the time from the end of the first step to the end of the `num_steps`-th after it."""

    def __init__(self, num_steps: int, device: torch.device) -> None:
        self.num_steps = num_steps
        self.device = device
        self.started = 0.0
        self.seconds_per_step = float("nan")

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.global_step == 1:
            wait_for(self.device)
            self.started = time.perf_counter()
        if trainer.global_step == self.num_steps + 1:
            wait_for(self.device)
            self.seconds_per_step = (time.perf_counter() - self.started) / self.num_steps


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
