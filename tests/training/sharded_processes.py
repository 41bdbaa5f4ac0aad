"""What tests of sharded checkpoints run in two processes of their own."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from training_processes import BUILD, RowsInFloat64

from flowexp.objectives import FlowMatching
from flowexp.training.checkpoints import AtomicCheckpointIO, StepCheckpoint, latest_checkpoint, shards
from flowexp.training.ema import EMA
from flowexp.training.fsdp import FullySharded


class At(pl.Callback):
    """Does something when a step has ended and is about to be saved."""

    def __init__(self, step: int, act: Callable[[], object]) -> None:
        self.step, self.act = step, act

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            self.act()


def network() -> FlowMatching:
    optimizer = partial(torch.optim.AdamW, lr=1e-3)
    return BUILD["every term"](seed=3, optimizer=optimizer, ema=EMA([0.5, 0.9])).double()


def fit(folder: Path, steps: int, *callbacks: pl.Callback, world_size: int = 1, sharded: bool = False) -> None:
    """Trains from the newest checkpoint of `folder` on, and saves each step."""
    trainer = pl.Trainer(
        max_steps=steps,
        accelerator="cpu",
        devices=world_size,
        strategy=FullySharded() if sharded else "auto",
        callbacks=[*callbacks, StepCheckpoint(folder, 1, keep=10, sharded=sharded)],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(network(), datamodule=RowsInFloat64(), ckpt_path=latest_checkpoint(folder))


def train_together(rank: int, folder: Path) -> None:
    """Three steps, one more by others that resume, and a run that is killed."""
    os.environ["LOCAL_RANK"] = str(rank)  # what tells Lightning that it need not start the other one
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    train_while_saving(folder / "run")
    fit(folder / "run", 4, world_size=2, sharded=True)
    be_killed_while_saving(folder / "killed")


def train_while_saving(folder: Path) -> None:
    """Step 2 reaches the disk only after step 3 has changed the weights."""
    write, is_trained = shards._Writer.write_data, threading.Event()

    def write_late(writer: shards._Writer, *args: Any, **kwargs: Any) -> Any:
        assert "step_00000002" not in writer.whole.name or is_trained.wait(60)
        return write(writer, *args, **kwargs)

    shards._Writer.write_data = write_late  # type: ignore[method-assign]
    fit(folder, 3, At(3, is_trained.set), world_size=2, sharded=True)
    shards._Writer.write_data = write  # type: ignore[method-assign]


def be_killed_while_saving(folder: Path) -> NoReturn:
    """After step 3, when both shares of step 2 are written and it has no name yet."""
    finish, all_is_written = shards._Writer.finish, folder.with_name("all_is_written")

    def never_end_the_second(writer: shards._Writer, *args: Any, **kwargs: Any) -> None:
        if "step_00000002" in writer.whole.name:
            all_is_written.touch()
            threading.Event().wait()
        finish(writer, *args, **kwargs)

    def die() -> None:
        limit = time.monotonic() + 60
        while not all_is_written.exists() and time.monotonic() < limit:
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGKILL)

    shards._Writer.finish = never_end_the_second  # type: ignore[method-assign]
    fit(folder, 5, At(3, die), world_size=2, sharded=True)
    raise AssertionError("it was not killed")
