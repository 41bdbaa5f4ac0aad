"""Every argument of Lightning's Trainer either works as Lightning says, or is refused by the name of what does it."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from flowexp.cli.assembly.hardware import resolve_precision
from flowexp.cli.composing import Configs, config_folder
from flowexp.cli.trainer_keys import INSTEAD, TAKEN, check_trainer, limited
from flowexp.data import Digits
from flowexp.objectives import FlowMatching, TrainingBatch
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import latest_checkpoint, load_checkpoint

WORKS = "works"
TABLE = {  # argument: WORKS, or what the refusal names
    "accelerator": WORKS,
    "strategy": "strategy=ddp",
    "devices": WORKS,
    "num_nodes": WORKS,
    "precision": WORKS,
    "logger": "logger=csv, wandb, tensorboard or mlflow",
    "callbacks": "callbacks=",
    "fast_dev_run": WORKS,
    "max_epochs": WORKS,
    "min_epochs": WORKS,
    "max_steps": WORKS,
    "min_steps": WORKS,
    "max_time": WORKS,
    "limit_train_batches": WORKS,
    "limit_val_batches": "callbacks.NAME.every_n_steps",
    "limit_test_batches": "callbacks.NAME.every_n_steps",
    "limit_predict_batches": "callbacks.NAME.every_n_steps",
    "overfit_batches": "debug=overfit",
    "val_check_interval": "callbacks.NAME.every_n_steps",
    "check_val_every_n_epoch": "callbacks.NAME.every_n_steps",
    "num_sanity_val_steps": "callbacks.NAME.every_n_steps",
    "log_every_n_steps": "log_every_n_steps=N",
    "enable_checkpointing": "checkpoint.every_n_steps",
    "enable_progress_bar": "progress_bar=",
    "enable_model_summary": "dry_run=true",
    "accumulate_grad_batches": WORKS,
    "gradient_clip_val": WORKS,
    "gradient_clip_algorithm": WORKS,
    "deterministic": WORKS,
    "benchmark": WORKS,
    "inference_mode": "callbacks.NAME.every_n_steps",
    "use_distributed_sampler": "the loader",
    "profiler": WORKS,
    "detect_anomaly": WORKS,
    "barebones": "dry_run=true",
    "plugins": "trainer.precision",
    "sync_batchnorm": "normalises over the batch",
    "reload_dataloaders_every_n_epochs": "seed",
    "default_root_dir": "output_root",
    "enable_autolog_hparams": "config.yaml",
    "model_registry": "run's folder",
}
REFUSED = [key for key, how in TABLE.items() if how != WORKS]
GIVEN: dict[str, Any] = {  # a value of each that works, beside a training of two steps
    "accelerator": "cpu", "devices": 1, "num_nodes": 1, "precision": "64-true", "max_epochs": 1, "min_epochs": 1,
    "max_steps": 2, "min_steps": 1, "max_time": "00:00:10:00", "limit_train_batches": 2, "accumulate_grad_batches": 2,
    "deterministic": True, "benchmark": False, "profiler": "simple", "detect_anomaly": True,
    "fast_dev_run": True, "gradient_clip_val": 0.5, "gradient_clip_algorithm": "value",
}  # fmt: skip


def trainer_with(**settings: Any) -> Any:
    return OmegaConf.merge(OmegaConf.load(config_folder() / "trainer/default.yaml"), settings)


def test_the_table_has_every_argument_of_lightning() -> None:
    """Lightning may gain one: then it is to be decided whether it works here."""
    assert set(TABLE) == set(inspect.signature(pl.Trainer).parameters)
    assert {key for key, how in TABLE.items() if how == WORKS} == {*TAKEN}
    assert {*REFUSED} == {*INSTEAD} and {*GIVEN} == {*TAKEN}


@pytest.mark.parametrize("key", REFUSED)
def test_what_does_not_work_names_what_does(key: str) -> None:
    with pytest.raises(ValueError, match=rf"trainer\.{key} is not taken: ") as refusal:
        check_trainer(trainer_with(**{key: 1}))
    assert TABLE[key] in str(refusal.value)


@pytest.mark.parametrize("spelling", ["trainer", "+trainer", "++trainer"])
def test_the_commands_refuse_it_before_there_is_a_folder(
    spelling: str, in_process: Callable[..., int], workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments in ([], ["dry_run=true"]):
        assert in_process("train", f"{spelling}.val_check_interval=0.5", "run_dir=x", *arguments) == 2
        assert "callbacks.NAME.every_n_steps" in capsys.readouterr().err
    assert not (workdir / "x").exists()


@pytest.mark.parametrize("key", TAKEN)
def test_what_works_passes(key: str) -> None:
    check_trainer(trainer_with(**{key: GIVEN[key]}))


@pytest.mark.slow
@pytest.mark.parametrize(
    "key",
    ["max_time", "min_epochs", "deterministic", "benchmark", "profiler", "detect_anomaly", "gradient_clip_algorithm"],
)
def test_what_works_trains(key: str, in_process: Callable[..., int], workdir: Path) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    try:
        assert in_process("train", *tiny(), f"++trainer.{key}={GIVEN[key]}", "trainer.max_steps=2", "run_dir=x") == 0
    finally:
        torch.use_deterministic_algorithms(before)
        torch.set_anomaly_enabled(False)
    assert load_checkpoint(latest_checkpoint(workdir / "x/checkpoints"))["global_step"] == 2


def tiny() -> list[str]:
    return [
        "data=digits", "data.train_size=64", "data.batch_size=16", "+backbone.depth=1", "+backbone.width=16",
        "+backbone.heads=2", "trainer.accelerator=cpu", "callbacks=none", "progress_bar=false",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_limit_of_batches_counts_in_the_plan_and_in_the_warmup(in_process: Callable[..., int], workdir: Path) -> None:
    epochs = ["trainer.max_steps=-1", "trainer.max_epochs=4", "+trainer.limit_train_batches=2"]
    settings = [*tiny(), *epochs, "lr_schedule=warmup", "lr_schedule.warmup_epochs=1", "optimizer.lr=1e-3", "run_dir=x"]
    assert in_process("train", *settings) == 0
    run = RunFolder(workdir / "x")
    assert run.origin()["plan"]["steps"] == "8 (2 per epoch)"
    saved = load_checkpoint(latest_checkpoint(run.checkpoints))
    assert saved["global_step"] == 8
    assert saved["optimizer_states"][0]["param_groups"][0]["lr"] == 1e-3  # reached after the 2 steps of an epoch


@pytest.mark.parametrize(("limit", "batches"), [(None, 22), (2, 2), (99, 22), (0.5, 11), (1.0, 22), (1, 1)])
def test_a_limit_is_a_number_or_a_share(limit: float | None, batches: int) -> None:
    assert limited(22, limit) == batches


@pytest.mark.parametrize("precision", ["16-mixed", "16-true", "bf16-true", 16, "16", "transformer-engine", "8", True])
def test_a_precision_in_which_nothing_is_learned_is_refused(precision: Any) -> None:
    with pytest.raises(ValueError, match=r"trainer\.precision must be one of auto, 32-true, 64-true, bf16-mixed; got"):
        check_trainer(trainer_with(precision=precision))


@pytest.mark.parametrize(("given", "runs"), [(64, "64-true"), ("32", "32-true"), ("bf16", "bf16-mixed")])
def test_a_precision_is_recorded_by_its_long_name(given: Any, runs: str) -> None:
    assert resolve_precision(given, "cpu") == runs


def doubled(num_steps: int, seen: list[TrainingBatch] | None = None) -> FlowMatching:
    """A module after some steps in 64-true, whose batches `seen` takes."""
    from flowexp.backbones import create_backbone

    torch.manual_seed(0)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=1, width=16, heads=2)
    module = FlowMatching(backbone)
    trainer = pl.Trainer(
        max_steps=num_steps, accelerator="cpu", precision="64-true", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    note = module.note
    module.note = lambda batch, losses: (([] if seen is None else seen).append(batch), note(batch, losses))
    trainer.fit(module, datamodule=Digits(batch_size=16, train_size=64))
    return module


@pytest.mark.slow
def test_a_training_in_64_true_is_one_in_float64() -> None:
    """Losses, noise, t and the EMA too: no number on the way has only the digits of float32."""
    seen: list[TrainingBatch] = []
    module = doubled(2, seen)
    assert {p.dtype for p in module.parameters()} == {torch.float64}
    assert module.ema is not None and {a.dtype for a in module.ema.averages.values()} == {torch.float64}
    batch = seen[0]
    assert {value.dtype for value in (batch.data, batch.noise, batch.t)} == {torch.float64}
    loss = module.latest["loss"]
    assert loss.dtype == torch.float64 and loss != loss.float()


@pytest.mark.slow
def test_it_is_measured_in_float32_and_trained_on_as_it_was() -> None:
    module = doubled(2)
    before = {name: value.clone() for name, value in module.state_dict().items()}
    with module.averaged():
        assert module.sample(range(2), seed=0).images.dtype == torch.float32
    torch.testing.assert_close(dict(module.state_dict()), before, rtol=0, atol=0)


def test_a_key_that_the_yaml_does_not_list_is_offered_with_a_plus(
    in_process: Callable[..., int], capsys: pytest.CaptureFixture[str]
) -> None:
    assert in_process("train", "trainer.limit_train_batches=2", "run_dir=x") == 2
    assert "+trainer.limit_train_batches=..." in capsys.readouterr().err


def test_the_default_yaml_has_only_keys_that_work() -> None:
    assert {*Configs().compose("train", ["run_dir=x"]).trainer} <= {*TAKEN}
