"""What tests run in processes of their own: fresh ones, since a fork of a process with threads may wait for ever."""

from __future__ import annotations

import json

import torch
import torch.distributed as dist

from flowexp.backbones import create_backbone
from flowexp.data import Digits
from flowexp.flow.sampler import Sampler
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.measuring.callbacks.probe import ProbeMonitor
from flowexp.measuring.callbacks.sample_metrics import SampleMetrics
from flowexp.measuring.callbacks.samples import SampleGridMonitor
from flowexp.objectives import FlowMatching


def random_module(num_classes: int | None = None) -> FlowMatching:
    torch.manual_seed(3)
    backbone = create_backbone("dit_nano4", resolution=8, channels=1, num_classes=num_classes)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return FlowMatching(backbone, sampler=Sampler("euler", num_steps=2))


def monitors(cache, every_n_steps=None):
    encoder = {"name": "efficientnet_lite", "input_size": 48}
    return [
        NoiseLevelMonitor(num_images=16, every_n_steps=every_n_steps),
        SampleGridMonitor(num_samples=4, every_n_steps=every_n_steps),
        ProbeMonitor([0.0, 0.1, 0.5], epochs=1, max_train_images=64, every_n_steps=every_n_steps),
        SampleMetrics(encoder, num_samples=9, batch_size=4, max_reference=30, cache=cache, every_n_steps=every_n_steps),
    ]


def measure_everything(rank, world_size, folder):
    """Runs all monitors as process `rank`; the first one writes what was found."""
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    module, datamodule, found = random_module(), Digits(batch_size=32), {}
    datamodule.setup()
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
