"""Callbacks that tests put into real runs, as `+callbacks.ranks._target_=witnesses.Ranks`, to see or to disturb."""

from __future__ import annotations

import hashlib
import json
import signal
import time
from pathlib import Path
from typing import Any, ClassVar

import pytorch_lightning as pl
import torch
from pytorch_lightning import Callback
from torch import Tensor

from flowexp.data import to_float


def digest(value: Any) -> str:
    """A hash of tensors in containers, bit for bit."""
    if isinstance(value, dict):
        parts = [f"{key}={digest(value[key])}" for key in sorted(value, key=str)]
    elif isinstance(value, list | tuple):
        parts = [digest(item) for item in value]
    elif isinstance(value, Tensor):
        parts = [hashlib.sha256(value.detach().cpu().contiguous().numpy().tobytes()).hexdigest()]
    else:
        parts = [repr(value)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


class Ranks(Callback):
    """Writes beside the run's config what each process trained with."""

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        seen = {
            "T_min": pl_module.t_min,
            "world_size": trainer.world_size,
            "weights": digest(dict(pl_module.backbone.state_dict())),
        }
        path = Path(trainer.default_root_dir) / f"rank{trainer.global_rank}.json"
        path.write_text(json.dumps(seen))


class InFloat64(Callback):
    """Trains in float64: what is left between one process and two is no longer the processor's rounding."""

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:
        pl_module.double()
        trainer.datamodule.to_data = lambda images: to_float(images).double()


class Slow(Callback):
    """Sleeps between a step and its checkpoint, so that a signal can arrive anywhere.

    At step `last`, if there is one, it sleeps until SIGTERM or a kill has come: the run has not ended before, however
    late the test is.
    """

    def __init__(self, seconds: float, last: int = -1) -> None:
        self.seconds, self.last = seconds, last
        self.asked = False

    def on_train_batch_start(self, *_: Any) -> None:
        answer = signal.getsignal(signal.SIGTERM)
        if answer != self._note and callable(answer):  # by now that of whoever saves the run
            self.answer = answer
            signal.signal(signal.SIGTERM, self._note)

    def _note(self, number: int, frame: Any) -> None:
        self.asked = True
        self.answer(number, frame)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        time.sleep(self.seconds)
        for _ in range(6000 if trainer.global_step == self.last else 0):
            if self.asked:
                break
            time.sleep(0.05)


class Poison(Callback):
    """Makes one batch NaN; when the run stops, writes what is in memory."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step == self.step:
            batch["image"].fill_(float("nan"))

    def on_exception(self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException) -> None:
        state = {
            "state_dict": digest(dict(pl_module.state_dict())),
            "ema": digest(pl_module.ema.state_dict()),
            "optimizer_states": digest([optimizer.state_dict() for optimizer in trainer.optimizers]),
        }
        (Path(trainer.default_root_dir) / "in_memory.json").write_text(json.dumps(state))


class Losses(Callback):
    """Notes the loss of every batch of the last training in this process."""

    noted: ClassVar[list[float]] = []

    def on_train_start(self, *_: Any) -> None:
        self.noted.clear()

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, *_: Any) -> None:
        self.noted.append(float(outputs["loss"]))


class Averages(Callback):
    """Uses the EMA weights between steps, as a monitor does, and writes what they give."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        noise = torch.ones(1, 1, 8, 8, dtype=pl_module.dtype)
        with pl_module.averaged():
            velocity = pl_module.backbone.decode(pl_module.backbone.encode(noise, torch.full((1,), 0.5)))
        torch.save(velocity, Path(trainer.default_root_dir) / f"velocity_rank{trainer.global_rank}.pt")
