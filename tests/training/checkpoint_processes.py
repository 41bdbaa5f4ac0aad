"""What tests of checkpoints run in processes of their own: fresh ones, a fork of a process with threads may hang."""

from __future__ import annotations

import os
import random
import signal
import time
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
import torch.distributed as dist

from flowexp.data.loader import BatchLoader
from flowexp.data.sets.images import ImageSet
from flowexp.training.checkpoints import (
    AtomicCheckpointIO,
    StepCheckpoint,
    latest_checkpoint,
    list_checkpoints,
    verify_checkpoint,
)


class Regression(pl.LightningModule):
    """Remembers which batch it was given when, and lets the loss depend on it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = torch.nn.Linear(4, 1)
        self.seen: list[tuple[Any, ...]] = []

    def training_step(self, batch: dict[str, torch.Tensor], batch_idx: int) -> torch.Tensor:
        self.seen.append((self.current_epoch, batch_idx, self.global_step, *batch["label"].tolist()))
        pixels = batch["image"].flatten(1).float() / 255
        return self.net(pixels).square().mean() + 0.01 * (batch_idx + 1) * self.net.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def five_batches_an_epoch() -> BatchLoader:
    images = torch.randint(0, 256, (23, 1, 2, 2), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
    return BatchLoader(ImageSet(images, torch.arange(23)), 4, seed=3, flip=True)


def fit(
    folder: Path, steps: int, *callbacks: pl.Callback, module: pl.LightningModule | None = None, **trainer: Any
) -> Any:
    """Trains in `folder/checkpoints`, from its newest checkpoint on if there is one."""
    every = trainer.pop("every_n_steps", 1)
    module = module or Regression()
    options = {
        "max_steps": steps, "max_epochs": -1, "accelerator": "cpu", "devices": 1, "logger": False,
        "enable_progress_bar": False, "enable_model_summary": False, "plugins": [AtomicCheckpointIO()],
        "callbacks": [*callbacks, StepCheckpoint(folder / "checkpoints", every)],
    }  # fmt: skip
    start = latest_checkpoint(folder / "checkpoints")
    pl.Trainer(**{**options, **trainer}).fit(module, five_batches_an_epoch(), ckpt_path=start)
    return module


def content(seed: int, size: int = 200_000) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    return {"global_step": seed, "state_dict": {f"w{i}": torch.randn(size, generator=generator) for i in range(3)}}


# --- a kill during a save --------------------------------------------------------------------------------------------


def kill_ten_savers(folder: Path) -> None:
    """Writes `torn_saves`: how many of the kills, at random moments, left a half-written file."""
    assert len(os.listdir("/proc/self/task")) == 1, "only a process without threads may be forked"
    moments, torn_saves = random.Random(0), 0
    for _ in range(10):
        before = set(os.listdir(folder))
        saver = os.fork() or _save_forever(folder)
        while set(os.listdir(folder)) == before:  # a busy machine may take its time to begin
            time.sleep(0.001)
        time.sleep(moments.uniform(0.0, 0.1))
        os.kill(saver, signal.SIGKILL)
        os.waitpid(saver, 0)
        torn_saves += bool(list(folder.glob(".*.partial")))
    for path in list_checkpoints(folder):
        verify_checkpoint(path)
    (folder / "torn_saves").write_text(str(torn_saves))


def _save_forever(folder: Path) -> NoReturn:
    step = len(list_checkpoints(folder))
    while True:
        step += 1
        AtomicCheckpointIO().save_checkpoint(content(step), folder / f"step_{step:08d}.ckpt")


# --- a signal to one of two ------------------------------------------------------------------------------------------


class Slow(pl.Callback):
    """Makes steps long enough to be met by a signal, and notes the last one that ended."""

    def __init__(self, note: Path) -> None:
        self.note = note

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self.note.write_text(str(trainer.global_step))
        time.sleep(0.02)


def fit_together(rank: int, folder: Path) -> None:
    """Trains as process `rank` of two, until it is told to stop."""
    os.environ["LOCAL_RANK"] = str(rank)  # what tells Lightning that it need not start the other one
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    fit(folder, 1000, Slow(folder / f"steps_of_{rank}"), every_n_steps=10_000, devices=2, strategy="ddp")
