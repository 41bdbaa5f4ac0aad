"""All monitors in a Trainer: when they measure, what they leave in the run's folder, and on two processes."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.training.parallel.work import collect, num_own, share

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from processes import measure_everything, monitors


def train(folder, module, datamodule, callbacks, max_steps=4):
    trainer = pl.Trainer(
        max_steps=max_steps,
        accelerator="cpu",
        devices=1,
        default_root_dir=folder,
        callbacks=callbacks,
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(module, datamodule=datamodule)


@pytest.mark.slow
def test_every_curve_and_picture_lies_in_the_runs_folder(tmp_path, module, datamodule):
    train(tmp_path / "run", module, datamodule, monitors(tmp_path / "cache", every_n_steps=2))
    found = {str(path.relative_to(tmp_path / "run/measurements")) for path in tmp_path.glob("run/measurements/*/*")}
    wanted = {
        "noise_levels": ["csv", "png"],
        "probe": ["csv", "png"],
        "samples": ["png"],
        "samples_efficientnet_lite": [],
    }
    maps = {"noise_levels/over_steps.png", "probe/over_steps.png"}
    assert found == maps | {
        f"{name}/step_{step:08d}.{kind}"
        for step in (2, 4)
        for name, kinds in wanted.items()
        for kind in [*kinds, "json"]
    }
    history = [json.loads(line) for line in (tmp_path / "run/measurements.jsonl").read_text().splitlines()]
    keys = {key for entry in history for key in entry["scalars"]}
    assert keys >= {"probe/peak", "probe/dip", "frechet/efficientnet_lite", "noise_levels/loss"}


@pytest.mark.slow
def test_training_errors_are_all_counted(tmp_path, module, datamodule):
    monitor = NoiseLevelMonitor(num_images=8)
    seen = []

    class Spy(pl.Callback):
        def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
            seen.append((outputs["t"], outputs["error"]))

    train(tmp_path, module, datamodule, [Spy(), monitor], max_steps=3)
    t, error = (torch.cat(parts) for parts in zip(*seen, strict=True))
    rows = [line.split(",") for line in (tmp_path / "measurements/noise_levels/step_00000003.csv").read_text().split()]
    means = {float(row[0]): float(row[2]) for row in rows[1:] if row[1] == "train"}
    for centre, mean in means.items():
        inside = (t * 20).long() == int(centre * 20)
        assert mean == pytest.approx(float(error[inside].mean()), rel=1e-5)
    assert sum(((t * 20).long() == int(centre * 20)).sum() for centre in means) == len(t) == 3 * 32


def test_a_share_is_every_nth_item_with_the_last_handed_out_again(monkeypatch):
    for rank, expected in enumerate([["a", "d"], ["b", "e"], ["c", "e"]]):
        monkeypatch.setattr("flowexp.training.parallel.work.rank_and_world_size", lambda rank=rank: (rank, 3))
        assert share(list("abcde")) == expected
        assert num_own(5) == [2, 2, 1][rank]


def test_alone_everything_is_ones_own():
    assert share(range(3)) == [0, 1, 2] and num_own(3) == 3 and collect({1: 2}) == {1: 2}


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available(), reason="needs gloo")
@pytest.mark.usefixtures("warm_processes")
def test_two_processes_measure_what_one_does(tmp_path):
    for world_size in (1, 2):
        mp.spawn(measure_everything, (world_size, tmp_path), nprocs=world_size)
    alone, together = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert len(alone) > 30
    assert together == pytest.approx(alone, rel=1e-6)
