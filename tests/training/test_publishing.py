"""What a plain `pl.Trainer` shows, logs and lets callbacks watch, and which averages a module keeps."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint
from pytorch_lightning.loggers import CSVLogger

sys.path.append(str(Path(__file__).parent))
from training_processes import Rows, dit

from flowexp.objectives import FlowMatching, LocalContrastiveFlow
from flowexp.records.tables import read_csv
from flowexp.training.ema import EMA
from flowexp.training.learner import RAW, run_length
from flowexp.training.lr_schedules import cosine, warmup

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


def fit(folder: Path, module: FlowMatching | None = None, num_steps: int = 6, **options: Any) -> pl.Trainer:
    given = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False} | options
    trainer = pl.Trainer(
        max_steps=num_steps, accelerator="cpu", devices=1, default_root_dir=folder, use_distributed_sampler=False,
        enable_model_summary=False, **given,
    )  # fmt: skip
    trainer.fit(module or LocalContrastiveFlow(backbone=dit(), T_min=400), datamodule=Rows())
    return trainer


NAMES = {"train/loss", "train/velocity", "train/contrast", "train/grad_norm", "train/lr"}


def test_losses_reach_loggers_bar_and_callbacks_once(tmp_path: Path):
    trainer = fit(tmp_path, logger=CSVLogger(tmp_path, "log"), log_every_n_steps=2)
    rows = read_csv(tmp_path / "log/version_0/metrics.csv")
    assert [row["step"] for row in rows] == [2, 4, 6] and set(rows[0]) == NAMES | {"step"}
    assert {*trainer.callback_metrics} == {*trainer.logged_metrics} == NAMES
    assert float(trainer.callback_metrics["train/loss"]) == pytest.approx(rows[-1]["train/loss"])
    assert trainer.progress_bar_metrics["train/loss"] == pytest.approx(rows[-1]["train/loss"])


def test_nothing_is_read_between_two_logged_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Reading a loss makes the device wait: once every `log_every_n_steps`, and at an epoch's end."""
    read = []
    values = FlowMatching.step_values
    monkeypatch.setattr(FlowMatching, "step_values", lambda self: read.append(self.global_step) or values(self))
    trainer = fit(tmp_path, log_every_n_steps=5, num_steps=7)
    ends = range(trainer.num_training_batches, 8, trainer.num_training_batches)
    assert read == sorted({5, *ends})


def test_accumulated_batches_are_one_step(tmp_path: Path):
    fit(tmp_path, logger=CSVLogger(tmp_path, "log"), log_every_n_steps=1, accumulate_grad_batches=2, num_steps=3)
    assert [row["step"] for row in read_csv(tmp_path / "log/version_0/metrics.csv")] == [1, 2, 3]


def test_lightnings_callbacks_see_the_loss_of_their_step(tmp_path: Path):
    best = ModelCheckpoint(tmp_path, monitor="train/loss", every_n_train_steps=2, save_top_k=-1)
    early = EarlyStopping("train/loss", stopping_threshold=1e9, mode="min")
    trainer = fit(tmp_path, callbacks=[best, early], enable_checkpointing=True, log_every_n_steps=2, num_steps=99)
    assert trainer.should_stop and 0 < trainer.global_step < 99
    steps = {torch.load(path, weights_only=True)["global_step"] for path in best.best_k_models}
    assert steps == set(range(2, trainer.global_step + 1, 2))
    assert len({float(score) for score in best.best_k_models.values()}) == len(steps)


def test_a_loaded_checkpoint_has_weights_and_average(tmp_path: Path):
    module = LocalContrastiveFlow(backbone=dit(), T_min=400, ema=EMA(0.5, warmup=False))
    trainer = fit(tmp_path, module)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    loaded = LocalContrastiveFlow.load_from_checkpoint(
        tmp_path / "last.ckpt", backbone=dit(), T_min=400, ema=EMA(0.5, warmup=False), map_location="cpu"
    )
    for one, other in zip(module.parameters(), loaded.parameters(), strict=True):
        assert torch.equal(one, other)
    with module.averaged(), loaded.averaged():
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), loaded.parameters(), strict=True))


def test_the_length_of_a_run_is_the_trainers(tmp_path: Path):
    found = []

    class Look(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, pl_module: Any) -> None:
            found.append((run_length(pl_module), trainer.estimated_stepping_batches, trainer.num_training_batches))

    for options in ({}, {"accumulate_grad_batches": 2}, {"limit_train_batches": 2}, {"limit_train_batches": 0.5}):
        fit(tmp_path, num_steps=-1, max_epochs=3, callbacks=[Look()], **options)
        length, total, batches = found[-1]
        parts = options.get("accumulate_grad_batches", 1)
        assert (length.total_steps, length.steps_per_epoch) == (total, -(-batches // parts))


def test_optimizer_schedule_and_clipping_of_a_plain_trainer(tmp_path: Path):
    sgd = partial(torch.optim.SGD, lr=0.1)
    module = FlowMatching(dit(), optimizer=sgd, lr_schedule=partial(warmup, warmup_epochs=1))
    trainer = fit(tmp_path, module, num_steps=2, gradient_clip_val=1e-3)
    assert isinstance(trainer.optimizers[0], torch.optim.SGD)
    assert 0 < trainer.optimizers[0].param_groups[0]["lr"] < 0.1
    module = FlowMatching(dit(), lr_schedule=cosine)
    assert fit(tmp_path, module, num_steps=3).optimizers[0].param_groups[0]["lr"] == pytest.approx(0, abs=1e-12)


def test_each_average_is_chosen_by_its_decay(tmp_path: Path):
    module = FlowMatching(dit(), ema=EMA([0.5, 0.9], warmup=False))
    fit(tmp_path, module)
    assert (module.weights_name, module.ema.decay) == ("ema 0.5", 0.5)
    module.choose_weights(0.9)
    assert (module.weights_name, module.ema.decay) == ("ema 0.9", 0.9)
    trained = [parameter.detach().clone() for parameter in module.parameters()]
    module.choose_weights(RAW)
    with module.averaged():
        assert all(torch.equal(a, b) for a, b in zip(module.parameters(), trained, strict=True))
        assert not module.backbone.training
    with pytest.raises(ValueError, match=r"ema must be one of 0\.5, 0\.9, raw, which this run has; got 0\.7"):
        module.choose_weights(0.7)


def test_a_new_decay_goes_on_from_the_average_that_there_is(tmp_path: Path):
    module = FlowMatching(dit(), ema=EMA(0.5, warmup=False))
    checkpoint: dict[str, Any] = {}
    fit(tmp_path, module)
    module.on_save_checkpoint(checkpoint)
    other = FlowMatching(dit(), ema=EMA([0.9, 0.5], warmup=False))
    other.on_load_checkpoint(checkpoint)
    with other.averaged():
        pass
    assert other.averages[0.9].decay == 0.9
    for average in other.averages.values():
        assert all(torch.equal(average.averages[name], value) for name, value in module.ema.averages.items())
