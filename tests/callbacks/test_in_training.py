"""All monitors in a Trainer: when they measure, what they leave in the run's folder, and on two processes."""

from __future__ import annotations

import json

import pytest
import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from flowexp.callbacks.frechet import FrechetMonitor
from flowexp.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.callbacks.probe import ProbeMonitor
from flowexp.callbacks.samples import SampleGridMonitor
from flowexp.callbacks.sharing import collect, num_own, share


def monitors(cache, every_n_steps=None):
    encoder = {"name": "efficientnet_lite", "input_size": 48}
    return [
        NoiseLevelMonitor(num_images=16, every_n_steps=every_n_steps),
        SampleGridMonitor(num_samples=4, every_n_steps=every_n_steps),
        ProbeMonitor([0.0, 0.1, 0.5], epochs=1, max_train_images=64, every_n_steps=every_n_steps),
        FrechetMonitor(encoder, 9, 4, max_reference=30, cache=cache, every_n_steps=every_n_steps),
    ]


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


def test_every_curve_and_picture_lies_in_the_runs_folder(tmp_path, module, datamodule):
    train(tmp_path / "run", module, datamodule, monitors(tmp_path / "cache", every_n_steps=2))
    found = {str(path.relative_to(tmp_path / "run/measurements")) for path in tmp_path.glob("run/measurements/*/*")}
    wanted = {
        "noise_levels": ["csv", "png"],
        "probe": ["csv", "png"],
        "samples": ["png"],
        "frechet_efficientnet_lite": [],
    }
    assert found == {
        f"{name}/step_{step:08d}.{kind}"
        for step in (2, 4)
        for name, kinds in wanted.items()
        for kind in [*kinds, "json"]
    }
    history = [json.loads(line) for line in (tmp_path / "run/measurements.jsonl").read_text().splitlines()]
    keys = {key for entry in history for key in entry["scalars"]}
    assert keys >= {"probe/peak", "probe/dip", "frechet/efficientnet_lite", "noise_levels/loss"}


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
        monkeypatch.setattr("flowexp.callbacks.sharing.rank_and_world_size", lambda rank=rank: (rank, 3))
        assert share(list("abcde")) == expected
        assert num_own(5) == [2, 2, 1][rank]


def test_alone_everything_is_ones_own():
    assert share(range(3)) == [0, 1, 2] and num_own(3) == 3 and collect({1: 2}) == {1: 2}


def measure_everything(rank, world_size, module, datamodule, folder):
    """Runs all monitors as process `rank`; the first one writes what was found."""
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    found = {}
    for monitor in monitors(folder / f"cache{world_size}"):
        if isinstance(monitor, NoiseLevelMonitor):
            t = torch.arange(10) / 10
            monitor.sums.update(t[rank::world_size], t[rank::world_size] + 1)
        with module.averaged():
            measurement = monitor.measure(module, datamodule, seed=0)
        found |= measurement.scalars
        found |= {f"{row['split']} {row['t']}": row["loss"] for row in measurement.rows if "split" in row}
        found |= {f"probe {row['t']}": row["accuracy"] for row in measurement.rows if "tap" in row}
    if rank == 0:
        (folder / f"{world_size}.json").write_text(json.dumps(found))


@pytest.mark.slow
@pytest.mark.skipif(not dist.is_available() or "fork" not in mp.get_all_start_methods(), reason="needs fork and gloo")
def test_two_processes_measure_what_one_does(tmp_path, module, datamodule):
    for world_size in (1, 2):
        arguments = (world_size, module, datamodule, tmp_path)
        mp.start_processes(measure_everything, arguments, nprocs=world_size, start_method="fork")
    alone, together = (json.loads((tmp_path / f"{n}.json").read_text()) for n in (1, 2))
    assert len(alone) > 30
    assert together == pytest.approx(alone, rel=1e-6)
