"""A command that trains or measures nothing changes nothing of a run that is there, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.records.keys import training_key
from flowexp.records.run_folder import RunFolder

pytestmark = pytest.mark.slow

NO_GPU = pytest.mark.skipif(torch.cuda.is_available(), reason="the refusal is that of a machine without a GPU")


@pytest.fixture(scope="module")
def run(shell, tiny) -> Path:
    """A finished run with an evaluation of its own in the folder E."""
    shell.here("train", *tiny, "output_root=untouched", "run_dir=untouched/R").succeeded()
    evaluation = ("callbacks=noise_levels", "callbacks.noise_levels.num_images=16", "run_dir=untouched/E")
    shell.here("evaluate", "run=untouched/R", *evaluation).succeeded()
    return shell.folder / "untouched"


def content_of(folder: Path) -> dict[str, bytes | None]:
    """Every file and folder below, with what the files hold."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in folder.rglob("*")}


REFUSED_TRAININGS = [
    ["ckpt=auto", "log_every_n_steps=0", "sampler=heun"],
    ["ckpt=auto", "sampler.autoguidance_scale=2"],
    ["ckpt=auto", "sampler.guidance_scale=2"],
    ["ckpt=auto", "progress_bar=maybe"],
    ["ckpt=auto", "+callbacks.mine._target_=nowhere.Mine"],
    ["ckpt=auto", "+logger.mine._target_=nowhere.Logger"],
    ["ckpt=auto", "sampler.num_steps=0"],
    ["ckpt=auto", "checkpoint.keep=0"],
    ["ckpt=untouched/R/checkpoints/step_00000004.ckpt"],
    ["ckpt=untouched/R", "seed=5"],
    ["ckpt=untouched/R", "data.batch_size=8"],
    ["ckpt=untouched/R", "backbone.width=32"],
    ["ckpt=untouched/R", "trainer.max_steps=6"],
    ["ckpt=untouched/R", "data.batch_size=5000"],
    ["seed=5"],
    ["ckpt=auto", "trainer.max_steps=6"],
    ["trainer.max_steps=24"],
    ["trained_run=untouched/R", "optimizer.lr=0.1"],
]


@pytest.mark.parametrize("wrong", REFUSED_TRAININGS, ids=" ".join)
def test_a_refused_training_leaves_the_run_as_it_was(run: Path, shell, tiny, wrong: list[str]):
    before = content_of(run)
    refused = shell.here("train", *tiny, "output_root=untouched", "run_dir=untouched/R", *wrong)
    assert refused.code == 2 and "Traceback" not in refused.err, refused.err
    assert content_of(run) == before


@NO_GPU
def test_a_device_that_is_not_here_leaves_the_run_as_it_was(run: Path, shell, tiny):
    before = content_of(run)
    wrong = ("trainer.accelerator=gpu", "ckpt=untouched/R", "run_dir=untouched/R")
    assert shell.here("train", *tiny, *wrong).code == 2
    assert shell.here("sample", "run=untouched/R", "device=cuda").code == 2
    assert shell.here("evaluate", "run=untouched/R", "device=cuda", "run_dir=untouched/E").code == 2
    assert content_of(run) == before


def test_a_dry_run_of_a_run_that_is_there_writes_nothing(run: Path, shell, tiny):
    before = content_of(run)
    same = (*tiny, "output_root=untouched", "ckpt=auto", "dry_run=true", "sampler=heun", "sampler.num_steps=7")
    assert "goes on with untouched/R" in shell.here("train", *same).succeeded().out
    assert content_of(run) == before


def test_a_folder_in_which_another_process_trains_is_left_alone(run: Path, shell, tiny, monkeypatch):
    before = content_of(run)
    monkeypatch.setattr("flowexp.records.run_folder._lock", lambda file: False)
    same = (*tiny, "output_root=untouched", "ckpt=auto", "sampler=heun", "logger=wandb")
    refused = shell.here("train", *same)
    assert refused.code == 2 and "another process trains in" in refused.err
    assert content_of(run) == before


@pytest.mark.parametrize(
    ("command", "wrong"),
    [
        ("sample", ["num_samples=0"]),
        ("sample", ["sampler.num_steps=0"]),
        ("sample", ["checkpoint=untouched/R/checkpoints/step_00000003.ckpt"]),
        ("sample", ["guide=untouched/R"]),
        ("evaluate", ["sampler.num_steps=0"]),
        ("evaluate", ["callbacks=frechet", "callbacks.frechet.num_samples=0"]),
        ("evaluate", ["sampler.num_steps=0", "run_dir=untouched/E"]),
        ("evaluate", ["run_dir=untouched/R"]),
        ("diagnose", ["sampler.num_steps=0"]),
        ("diagnose", ["callbacks.probe.every_n_steps=0"]),
    ],
    ids=str,
)
def test_a_refused_measurement_leaves_the_run_as_it_was(run: Path, shell, command: str, wrong: list[str]):
    before = content_of(run)
    refused = shell.here(command, "run=untouched/R", *wrong)
    assert refused.code == 2 and "Traceback" not in refused.err, refused.err
    assert content_of(run) == before


def test_the_loser_of_two_starts_at_one_moment_writes_neither_config_nor_origin(shell, tiny, monkeypatch):
    """The door of the second looked before the first had begun, and its job comes when the first has ended."""
    monkeypatch.setattr("flowexp.cli.resolve._check_folder", lambda command, config: None)
    shell.here("train", *tiny, "run_dir=untouched_twice").succeeded()
    folder = RunFolder(shell.folder / "untouched_twice")
    before = content_of(folder.path)
    second = shell.here("train", *tiny, "run_dir=untouched_twice", "optimizer.lr=0.01")
    assert second.code == 2 and "holds a run with other training settings" in second.err
    assert content_of(folder.path) == before
    assert training_key(folder.config()) == folder.origin()["training_key"]


def test_a_refused_first_start_leaves_a_trace_and_no_run(shell, tiny):
    assert shell.here("train", *tiny, "run_dir=untouched_first", "log_every_n_steps=0").code == 2
    folder = shell.folder / "untouched_first"
    assert [path.name for path in folder.iterdir()] == ["log.txt"]


def test_a_dry_run_in_a_new_folder_leaves_its_plan_and_its_config(shell, tiny):
    for steps in (12, 13):  # the second time over the first
        shell.here("train", *tiny, "run_dir=untouched_dry", "dry_run=true", f"trainer.max_steps={steps}").succeeded()
    folder = shell.folder / "untouched_dry"
    assert {path.name for path in folder.iterdir()} == {"config.yaml", "plan.json"}
    assert json.loads((folder / "plan.json").read_text())["num_steps"] == 13
    assert OmegaConf.load(folder / "config.yaml").trainer.max_steps == 13
