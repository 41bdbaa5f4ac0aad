"""A step is over when all its batches are: its gradient, its logged numbers, its measurements and its checkpoint."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

sys.path.append(str(Path(__file__).parent))
from training_processes import Rows, dit

from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.measuring.callbacks.step_log import StepLog
from flowexp.objectives import FlowMatching
from flowexp.records.csv_log import CsvLog
from flowexp.records.recording import Measurement
from flowexp.records.tables import read_csv
from flowexp.training.checkpoints import AtomicCheckpointIO, StepCheckpoint, latest_checkpoint
from flowexp.training.lr_schedules import warmup

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
PER_EPOCH = 4  # batches of `Rows`


class Steps(pl.Callback):
    """Each step's batches, with the gradient that it is taken along and the one of the mean of their losses."""

    def __init__(self) -> None:
        self.losses: list[list[float]] = []
        self.norms: list[tuple[float, float]] = []

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        parameters = [p for p in pl_module.parameters() if p.requires_grad]
        with torch.enable_grad():
            losses = [pl_module.losses(batch).loss for batch, _ in pl_module._accumulated]
            expected = torch.autograd.grad(torch.stack(losses).mean(), parameters)
        self.losses.append([float(loss) for loss in losses])
        self.norms.append((norm([p.grad for p in parameters]), norm(expected)))


def norm(gradients: Any) -> float:
    return float(torch.cat([gradient.flatten().double() for gradient in gradients]).norm())


class Counting(Monitor):
    """Notes the steps at which it measures."""

    def __init__(self, **when: Any) -> None:
        super().__init__(**when)
        self.steps: list[int] = []

    def measure(self, module: FlowMatching, datamodule: Any, seed: int) -> Measurement:
        self.steps.append(self.step)
        return Measurement("counting", {"counting/step": float(self.step)})


def fit(
    folder: Path, num_steps: int, *callbacks: pl.Callback, accumulate: int = 1, save_every: int = 1, **options: Any
) -> None:
    """Trains in `folder` as `flowexp.train` does, from the newest checkpoint on."""
    optimizer, schedule = partial(torch.optim.AdamW, lr=1e-3), partial(warmup, **options)
    trainer = pl.Trainer(
        max_steps=num_steps, accelerator="cpu", devices=1, accumulate_grad_batches=accumulate, logger=CsvLog(folder),
        callbacks=[*callbacks, StepLog(1), StepCheckpoint(folder / "checkpoints", save_every)],
        default_root_dir=folder, enable_progress_bar=False, enable_model_summary=False, plugins=[AtomicCheckpointIO()],
    )  # fmt: skip
    start = latest_checkpoint(folder / "checkpoints")
    module = FlowMatching(dit(), optimizer=optimizer, lr_schedule=schedule, seed=3)
    trainer.fit(module, datamodule=Rows(), ckpt_path=start)


def curve(folder: Path, column: str) -> dict[int, float]:
    rows = read_csv(folder / "csv/version_0/metrics.csv")
    return {int(row["step"]): row[column] for row in rows if row[column] != ""}


@pytest.mark.parametrize(("accumulate", "sizes"), [(1, [1] * 5), (3, [3, 1, 3, 1, 3]), (4, [4] * 5), (8, [4] * 5)])
def test_a_step_is_that_of_the_mean_loss_of_the_batches_that_it_has(tmp_path: Path, accumulate: int, sizes: list[int]):
    steps = Steps()
    fit(tmp_path, 5, steps, accumulate=accumulate)
    assert [len(losses) for losses in steps.losses] == sizes
    for taken, expected in steps.norms:
        assert taken == pytest.approx(expected, rel=1e-4)
    means = [sum(losses) / len(losses) for losses in steps.losses]
    assert curve(tmp_path, "train/loss") == pytest.approx(dict(enumerate(means, 1)), rel=1e-5)
    assert curve(tmp_path, "train/grad_norm") == pytest.approx(
        {step: expected for step, (_, expected) in enumerate(steps.norms, 1)}, rel=1e-4
    )


@pytest.mark.parametrize("accumulate", [1, 3])
def test_what_is_measured_on_the_way_is_of_whole_steps_and_a_resume_repeats_nothing(tmp_path: Path, accumulate: int):
    alone, before, after = (Counting(every_n_steps=2, at_end=False) for _ in range(3))
    fit(tmp_path / "alone", 6, alone, accumulate=accumulate)
    assert alone.steps == [2, 4, 6]
    fit(tmp_path / "run", 4, before, accumulate=accumulate)
    fit(tmp_path / "run", 6, after, accumulate=accumulate)
    assert before.steps + after.steps == [2, 4, 6]
    for column in ("train/loss", "train/grad_norm", "train/lr", "counting/step"):
        assert curve(tmp_path / "run", column) == curve(tmp_path / "alone", column)


@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_errors_of_training_by_noise_level_go_on_over_a_resume(tmp_path: Path, accumulate: int):
    for folder, ends in (("alone", [4]), ("run", [3, 4])):
        for end in ends:
            monitor = NoiseLevelMonitor(num_bins=4, num_images=4, every_n_steps=4, at_end=False)
            fit(tmp_path / folder, end, monitor, accumulate=accumulate)
    one, other = (tmp_path / folder / "measurements/noise_levels/step_00000004.csv" for folder in ("alone", "run"))
    assert one.read_text() == other.read_text()


def test_the_learning_rate_is_that_of_the_step_it_stands_at(tmp_path: Path):
    fit(tmp_path, 3, warmup_steps=10)
    assert curve(tmp_path, "train/lr") == pytest.approx({1: 1e-4, 2: 2e-4, 3: 3e-4})


@pytest.mark.parametrize(("every", "steps"), [(50, [1, 7]), (3, [1, 3, 6, 7]), (7, [1, 7])])
def test_the_first_and_the_last_step_are_always_logged(tmp_path: Path, every: int, steps: list[int]):
    trainer = pl.Trainer(
        max_steps=7, accelerator="cpu", devices=1, logger=CsvLog(tmp_path), callbacks=[StepLog(every)],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(FlowMatching(dit()), datamodule=Rows())
    assert list(curve(tmp_path, "train/loss")) == steps
