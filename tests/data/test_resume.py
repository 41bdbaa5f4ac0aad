"""The loader under Lightning's own loops: a run stopped at any step and resumed sees what the run left alone sees."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from pytorch_lightning import Callback, LightningModule, Trainer
from torch import Tensor

from flowexp.data import ImageDataModule, ImageSet, to_uint8

STEPS_PER_EPOCH = 5
Seen = list[tuple[list[int], list[int]]]  # the labels and the pixels of each step


class Rows(ImageDataModule):
    """22 images that carry their row and whether they are mirrored."""

    name, resolution, channels, num_classes = "rows", 2, 1, 22

    def load(self) -> tuple[ImageSet, ImageSet]:
        rows = torch.arange(22, dtype=torch.uint8)
        everything = ImageSet(torch.stack((rows, rows + 1), -1).reshape(22, 1, 1, 2), torch.arange(22))
        return everything, everything


class Diary(LightningModule):
    """A module that writes down what it is given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.seen: Seen = []

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> Tensor:
        self.seen.append((batch["label"].tolist(), to_uint8(batch["image"]).flatten().tolist()))
        return self.weight.sum()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveAt(Callback):
    """Saves in one of Lightning's hooks once `step` is reached."""

    def __init__(self, hook: str, step: int, path: Path) -> None:
        self.step, self.path = step, path
        setattr(self, hook, self.save)

    def save(self, trainer: Trainer, *_: Any, **__: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.path)


def run(
    callback: Callback | None = None, resume: Path | None = None, diary: Diary | None = None, **limits: int
) -> Seen:
    diary = diary or Diary()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        callbacks=[callback] if callback else None,
        **limits,
    )
    trainer.fit(diary, datamodule=Rows(batch_size=4, flip=True, seed=5), ckpt_path=resume, weights_only=True)
    return diary.seen


@pytest.fixture(scope="module")
def undisturbed() -> Seen:
    return run(max_epochs=3)


def test_a_run_visits_each_epoch_in_another_order(undisturbed: Seen):
    epochs = [undisturbed[i : i + STEPS_PER_EPOCH] for i in range(0, len(undisturbed), STEPS_PER_EPOCH)]
    rows = [[row for labels, _ in epoch for row in labels] for epoch in epochs]
    assert [len(set(seen)) for seen in rows] == [20, 20, 20]
    assert rows[0] != rows[1] != rows[2]


# With max_steps Lightning loads the loader's state also at the end of an epoch, with max_epochs it does not.
both_limits = pytest.mark.parametrize("limits", [{"max_steps": 15}, {"max_epochs": 3}], ids=["max_steps", "max_epochs"])


@pytest.mark.slow
@both_limits
@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 8, 10, 13])
def test_a_run_that_died_and_was_resumed_sees_what_the_undisturbed_run_sees(
    undisturbed: Seen, tmp_path: Path, step: int, limits: dict[str, int]
):
    run(SaveAt("on_train_batch_end", step, tmp_path / "at.ckpt"), max_epochs=3)
    assert run(resume=tmp_path / "at.ckpt", **limits) == undisturbed[step:]


@pytest.mark.parametrize("step", [1, 3, 4, 5, 6, 8, 10, 13])
def test_a_run_that_was_stopped_by_max_steps_can_be_prolonged(undisturbed: Seen, tmp_path: Path, step: int):
    before = run(SaveAt("on_train_end", step, tmp_path / "at.ckpt"), max_steps=step)
    assert before + run(resume=tmp_path / "at.ckpt", max_steps=15) == undisturbed


@both_limits
@pytest.mark.parametrize("epochs", [1, 2])
def test_a_checkpoint_from_the_end_of_an_epoch_goes_on_with_the_next(
    undisturbed: Seen, tmp_path: Path, epochs: int, limits: dict[str, int]
):
    step = epochs * STEPS_PER_EPOCH
    run(SaveAt("on_train_epoch_end", step, tmp_path / "at.ckpt"), max_epochs=3)
    assert run(resume=tmp_path / "at.ckpt", **limits) == undisturbed[step:]


def test_a_run_can_be_resumed_twice_within_an_epoch(undisturbed: Seen, tmp_path: Path):
    run(SaveAt("on_train_batch_end", 6, tmp_path / "a.ckpt"), max_epochs=3)
    run(SaveAt("on_train_batch_end", 8, tmp_path / "b.ckpt"), resume=tmp_path / "a.ckpt", max_epochs=3)
    assert run(resume=tmp_path / "b.ckpt", max_epochs=3) == undisturbed[8:]


def test_what_the_trainer_takes_for_an_epoch_does_not_matter(undisturbed: Seen, tmp_path: Path):
    before = run(SaveAt("on_train_epoch_end", 6, tmp_path / "at.ckpt"), max_epochs=2, limit_train_batches=3)
    after = run(resume=tmp_path / "at.ckpt", max_epochs=5, limit_train_batches=3)
    assert before + after == undisturbed


class Planner(Diary):
    """A module that asks how long the run will be, which makes Lightning build the loader before it is restored."""

    def configure_optimizers(self) -> torch.optim.Optimizer:
        assert self.trainer.estimated_stepping_batches == 15
        return super().configure_optimizers()


def test_a_module_that_asks_for_the_number_of_steps_resumes_exactly(undisturbed: Seen, tmp_path: Path):
    run(SaveAt("on_train_batch_end", 7, tmp_path / "at.ckpt"), max_steps=7)
    assert run(resume=tmp_path / "at.ckpt", diary=Planner(), max_epochs=3) == undisturbed[7:]


def test_resuming_with_another_batch_size_is_refused(tmp_path: Path):
    run(SaveAt("on_train_end", 3, tmp_path / "at.ckpt"), max_steps=3)
    trainer = Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False, max_steps=9
    )
    with pytest.raises(ValueError, match="batch_size=4, this run has 2"):
        trainer.fit(Diary(), datamodule=Rows(batch_size=2, flip=True, seed=5), ckpt_path=tmp_path / "at.ckpt")
