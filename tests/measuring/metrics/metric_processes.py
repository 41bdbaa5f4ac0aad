"""What tests of metrics run in processes of their own: fresh ones, since a fork of a process with threads may hang."""

from __future__ import annotations

import json

import torch
import torch.distributed as dist

from flowexp.measuring.metrics import METRICS, FeatureCollector, MetricPlan, Needs, Statistics

DIMS = {"features": 12, "spatial": 9, "logits": 6}
OPTIONS = {"kid_subsets": 5, "kid_subset_size": 20, "split_size": 40, "resamples": 20, "pairwise_reference": 70}
ALL = MetricPlan(tuple(METRICS), **OPTIONS)


def outputs(num: int, seed: int) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(num, dim, generator=generator) + 0.1 * seed for name, dim in DIMS.items()}


def collect(num: int, seed: int, needs: Needs, rank: int = 0, world_size: int = 1) -> Statistics:
    found, collector = outputs(num, seed), FeatureCollector(num, DIMS, needs, split_size=40)
    for rows in torch.arange(num)[rank::world_size].split(13):
        collector.update({name: found[name][rows] for name in needs.outputs}, rows)
    return collector.compute()


def measure(rank, world_size, folder):
    if world_size > 1:
        dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=world_size)
    samples = collect(101, 1, ALL.samples, rank, world_size)
    found = ALL.compute(samples, collect(90, 0, ALL.reference, rank, world_size))
    scores = {name: value for scores in found.values() for name, value in scores.items()}
    (folder / f"{world_size}_{rank}.json").write_text(json.dumps(scores))
