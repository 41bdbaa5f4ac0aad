"""Which runs train the same, and how a run is found again."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
from omegaconf import DictConfig, OmegaConf

from flowexp.cli.launch import config_folder
from flowexp.records.files import atomic
from flowexp.records.keys import measured_while_training, measuring_key, training_key
from flowexp.records.run_folder import RunFolder
from flowexp.records.search import find_run


def composed(*overrides: str) -> DictConfig:
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(config_folder()), version_base="1.3"):
        return compose("train", ["name=x", "run_dir=somewhere", *overrides])


def a_run(folder: Path, config: DictConfig, trained: bool) -> RunFolder:
    run = RunFolder(folder)
    run.create(config)
    atomic.write_json(folder / "run.json", {"training_key": training_key(config)})
    if trained:
        atomic.write_json(run.trained_file, {"step": 1})
    return run


@pytest.mark.slow
@pytest.mark.parametrize(
    "override", ["sampler.s0=1.1", "ssc=linear", "sampler=heun", "callbacks=none", "logger=wandb", "name=y"]
)
def test_training_free_keys_keep_the_training_key(override: str) -> None:
    assert training_key(composed(override)) == training_key(composed())


@pytest.mark.slow
@pytest.mark.parametrize(
    "override",
    [
        "lr_schedule=cosine", "ema.decay=0.9", "trainer.gradient_clip_val=2", "callbacks=[default,early_stopping]",
        "objective=lcf", "seed=1", "optimizer.lr=2e-4", "trainer.max_steps=3", "backbone=dit_tiny4", "interpolant=gvp",
    ],
)  # fmt: skip
def test_whatever_changes_the_weights_changes_the_training_key(override: str) -> None:
    assert training_key(composed(override)) != training_key(composed())


LATENTS = ("data=imagenet_latents_256", "terms=repa")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "place"),
    [
        (["data=cifar10"], "data.root=elsewhere"),
        (["data=cifar10"], "data.on_device=false"),
        (["data=imagenet"], "data.num_workers=2"),
        (["data=imagenet"], "data.cache=true"),
        (LATENTS, "data.root=elsewhere"),
        (LATENTS, "data.pictures.root=elsewhere"),
        (LATENTS, "data.pictures.num_workers=2"),
        (LATENTS, "data.vae.weights=elsewhere"),
        (LATENTS, "data.vae.batch_size=4"),
        (LATENTS, "data.with_pictures=true"),
        (LATENTS, "+vae@data.decoder=sd_ft_ema"),
        (LATENTS, "terms.repa.cache=elsewhere"),
        (["data=imagenet", "terms=repa_dinov2"], "terms.repa.teacher_options.weights=elsewhere"),
        (["data=coco_latents_256"], "data.pictures.text.weights=elsewhere"),
    ],
)
def test_where_things_lie_and_how_fast_they_are_read_does_not_matter(chosen: Sequence[str], place: str) -> None:
    moved, here = composed(*chosen, place), composed(*chosen)
    assert moved != here and training_key(moved) == training_key(here)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chosen", "content"),
    [
        (LATENTS, "data.vae.scale=0.2"),
        (LATENTS, "vae@data.vae=sd_ft_ema"),
        (LATENTS, "data.pictures.resolution=128"),
        (LATENTS, "data.batch_size=128"),
        (LATENTS, "data.flip=false"),
        (LATENTS, "terms.repa.teacher=dinov2_vitb14"),
        (["data=coco"], "data.text.weights=another"),
    ],
)
def test_what_the_data_are_does_matter(chosen: Sequence[str], content: str) -> None:
    assert training_key(composed(*chosen, content)) != training_key(composed(*chosen))


@pytest.mark.slow
def test_what_is_measured_has_a_key_of_its_own() -> None:
    assert measuring_key(composed("callbacks.frechet.num_samples=5")) != measuring_key(composed())
    assert measuring_key(composed("encoder=inception")) != measuring_key(composed())
    assert measuring_key(composed("seed=3")) == measuring_key(composed())
    assert measuring_key(composed("callbacks.frechet.cache=elsewhere")) == measuring_key(composed())


@pytest.mark.slow
def test_what_only_a_training_can_measure_is_named() -> None:
    asked = composed("callbacks.frechet.every_n_steps=500", "callbacks.samples=null")
    assert measured_while_training(asked) == {"callbacks.frechet.every_n_steps": 500}
    assert measured_while_training(composed("callbacks=none")) == {}
    settings_alone = composed("experiment=cifar10_fm", "callbacks=probe_only")
    assert settings_alone.callbacks.frechet.every_n_steps and measured_while_training(settings_alone) == {}


@pytest.mark.slow
def test_the_newest_run_that_trains_the_same_is_found(tmp_path: Path) -> None:
    config, other = composed(), composed("seed=1")
    a_run(tmp_path / "a", config, trained=True)
    a_run(tmp_path / "b", config, trained=False)
    a_run(tmp_path / "c", other, trained=True)
    assert find_run(tmp_path, training_key(config)).path.name == "b"
    assert find_run(tmp_path, training_key(config), trained=True).path.name == "a"
    assert find_run(tmp_path, "unknown") is None


def test_a_folder_that_is_no_run_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config.yaml.*Give the folder"):
        RunFolder(tmp_path).config()


def test_a_run_folder_keeps_its_config_resolved(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    run.create(OmegaConf.create({"a": 1, "b": "${a}"}))
    assert run.config() == {"a": 1, "b": 1}


def test_json_is_replaced_whole(tmp_path: Path) -> None:
    run = RunFolder(tmp_path)
    atomic.write_json(run.summary_file, {"scalars": {"x": 1.0}})
    assert run.summary() == {"scalars": {"x": 1.0}}
    assert [path.name for path in tmp_path.iterdir()] == ["summary.json"]
    assert json.loads(run.summary_file.read_text())


HOLDER = """
import sys
from pathlib import Path
from flowexp.records.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_trained_in_by_one_process_at_a_time_and_a_kill_lets_go_of_it(tmp_path: Path) -> None:
    command = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None and holder.stdout.readline() == "held\n"
        refused = pytest.raises(ValueError, match=rf"another process trains in .* \(process {holder.pid} on ")
        with refused, RunFolder(tmp_path).held():
            pass
        holder.kill()
    with RunFolder(tmp_path).held():
        assert f"process {os.getpid()} on" in (tmp_path / ".lock").read_text()


WITH_A_WORKER = """
import os, sys, time
from pathlib import Path
from flowexp.records.run_folder import RunFolder
with RunFolder(Path(sys.argv[1])).held():
    worker = os.fork()
    if not worker:
        time.sleep(60)
    print(worker, flush=True)
    sys.stdin.read()
"""


def test_a_forked_worker_that_outlives_a_killed_training_does_not_hold_its_folder(tmp_path: Path) -> None:
    command = [sys.executable, "-c", WITH_A_WORKER, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout is not None
        worker = int(holder.stdout.readline())
        holder.kill()
        holder.wait()
        try:
            with RunFolder(tmp_path).held():
                os.kill(worker, 0)  # it lives
        finally:
            os.kill(worker, signal.SIGKILL)


def test_a_file_system_without_locks_keeps_nobody_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    with RunFolder(tmp_path).held():
        pass
