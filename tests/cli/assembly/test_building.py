"""From a config to the parts of a run: what is counted, and what is said of a part that is not there."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf

from flowexp.backbones import create_backbone
from flowexp.cli.assembly.building import build, build_backbone, build_monitors, steps_per_epoch
from flowexp.cli.assembly.hardware import resolve_accelerator, resolve_device
from flowexp.cli.composing import Configs
from flowexp.cli.trust import TARGETS
from flowexp.data import Digits
from flowexp.objectives import FlowMatching


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 2, 5])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
def test_the_steps_of_an_epoch_are_those_that_lightning_takes(accumulate: int):
    datamodule = Digits(batch_size=16, train_size=80)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=1, width=16, heads=2)
    trainer = pl.Trainer(
        max_epochs=1, accumulate_grad_batches=accumulate, accelerator="cpu", use_distributed_sampler=False,
        logger=False, enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(FlowMatching(backbone), datamodule=datamodule)
    config = OmegaConf.create({"trainer": {"accumulate_grad_batches": accumulate}})
    assert steps_per_epoch(config, datamodule) == trainer.global_step


@pytest.mark.parametrize(
    ("target", "reason"),
    [
        ("no_such_file.Mine", "No module named 'no_such_file'"),
        ("flowexp.objectives.Fm", "No module named 'flowexp.objectives.Fm'"),
    ],
)
def test_a_target_that_is_not_there_is_named_with_where_it_was_looked_for(
    target: str, reason: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv(TARGETS, target)
    with pytest.raises(ValueError, match=rf"{reason}.*in the folder where the command is started, on PYTHONPATH, or"):
        build(OmegaConf.create({"_target_": target}))


def test_what_a_constructor_refuses_is_told_in_its_own_words():
    with pytest.raises(ValueError, match=r"ema\.decay must lie in \[0, 1\), got -1"):
        build(OmegaConf.create({"_target_": "flowexp.training.ema.EMA", "decay": -1.0}))


def test_classes_are_not_asked_of_a_dataset_of_captions():
    config = OmegaConf.create({"class_conditional": True, "backbone": {}})
    with pytest.raises(ValueError, match="class_conditional=true needs labels that are classes"):
        build_backbone(config, SimpleNamespace(text_shape=(16, 128)))  # type: ignore[arg-type]


def test_auto_is_never_an_accelerator_without_float64():
    assert resolve_accelerator("auto") == ("cuda" if torch.cuda.is_available() else "cpu")
    assert resolve_device("auto").type == resolve_accelerator("auto") and resolve_accelerator("mps") == "mps"


@pytest.mark.parametrize(
    ("device", "words"),
    [("gpu7", "device must be auto, cpu or cuda, got 'gpu7'"), ("cuda:1", "device=cuda:1 needs a CUDA GPU, and torch")],
)
def test_a_device_that_is_not_there_is_refused(device: str, words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(ValueError, match=words):
        resolve_device(device)


def test_monitors_that_name_one_feature_network_share_it():
    chosen = (f"+callbacks@callbacks.{name}={name}" for name in ("probe", "frechet"))
    config = Configs().compose("train", ["callbacks=none", *chosen])
    OmegaConf.set_readonly(config, True)
    own, shared = build_monitors(config)
    assert own.baselines.encoder is shared.encoder
    OmegaConf.set_readonly(config, False)
    config.callbacks.frechet.encoder = {**config.encoder, "input_size": 64}
    own, smaller = build_monitors(config)
    assert (own.baselines.encoder.input_size, smaller.encoder.input_size) == (96, 64)
