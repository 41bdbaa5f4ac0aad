"""Training steps of the networks that are no DiT: what bf16 and the compiler save of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.sizes import Size
from benchmarks.steps import Training
from benchmarks.table import Promise, Result, Row, compare
from benchmarks.timing import Comparison, stopwatch
from benchmarks.training import missing_compiler
from flowexp.backbones import Backbone, create_backbone

NETWORKS = {"U-Net": "unet_nano", "MMDiT": "mmdit_nano"}


def networks(size: Size, rounds: int) -> Result:
    """An FM step of a U-Net and of an MMDiT under bf16 autocast, and with every block compiled too, against fp32.

    unet_nano and mmdit_nano on the latents of the case `step`, without classes, the captions all empty. More than half
    of such a U-Net's step are convolutions, for which the compiler calls the same library: `compile=auto` leaves a
    U-Net on a CPU alone, and an MMDiT must gain.
    """
    missing = missing_compiler() if size.compiled else "takes longer than this size has"
    rows = [row for name in NETWORKS for row in _rows_of(name, size, rounds, compiled=not missing)]
    return Result(rows, [f"compile left out: {missing}"] if missing else [])


def _rows_of(name: str, size: Size, rounds: int, compiled: bool) -> list[Row]:
    fp32, bf16, best = f"{name}, fp32", f"{name}, bf16", f"{name}, bf16 + compile"
    works = {fp32: _step(name, size, "32-true"), bf16: _step(name, size, "bf16-mixed")}
    if compiled:
        works[best] = _step(name, size, "bf16-mixed", compiled=True)
    timings = Comparison({key: stopwatch(work, size.device) for key, work in works.items()}).run(rounds, warmup=2)
    promise = None if name == "U-Net" and size.device.type == "cpu" else Promise(1.0)
    against = [compare(timings, best, bf16, promise)] if compiled else []
    return [compare(timings, bf16, fp32), *against]


def _step(name: str, size: Size, precision: str, compiled: bool = False) -> Callable[[], None]:
    torch.manual_seed(0)
    options: dict[str, Any] = {"resolution": size.latents[2], "channels": size.latents[1]}
    network = create_backbone(NETWORKS[name], **options).to(size.device)
    if compiled:
        network.compile_blocks()
    latents = torch.randn(size.latents, device=size.device)
    return Training(network, latents, label_for(network, latents), size).fm_step(precision)


def label_for(network: Backbone, latents: Tensor) -> Tensor:
    """Empty captions for a network that takes text, else a label that no U-Net without classes reads."""
    nothing = latents.new_zeros(len(latents))
    if network.takes != "text":
        return nothing
    captions = network.null_condition(nothing)
    assert captions is not None
    return captions
