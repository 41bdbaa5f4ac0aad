"""A training step of SiT-S/2 on latents: flowexp's, SiT's and the products of matrices in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from benchmarks.sit import SiT, SiTTraining
from benchmarks.sizes import Size
from benchmarks.steps import Training
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, stopwatch
from benchmarks.training import missing_compiler
from flowexp.backbones import create_backbone

WIDTH, HEADS, NUM_CLASSES = 384, 6, 1000


def step(size: Size, rounds: int) -> Result:
    """flowexp's step of SiT-S/2 (12 x 384 x 6), bf16 and compiled, against SiT's as its paper describes it, in fp32.

    4 x 32 x 32 latents, 16 a step (256 on a GPU), 1000 classes. SiT's step is written on timm's parts
    (benchmarks/sit.py): AdamW, neither clipping nor compiling, the EMA tensor by tensor; the second is the same under
    bf16 autocast. "Products" are those of matrices alone, forward and backward, in bf16: no step can take less. Where
    a processor multiplies bf16 six times as fast as fp32 (AMX) they leave more to be had than where it does twice as
    fast, so that the step may take 0.27 times SiT's there, and 1.3 times the products anywhere.
    """
    latents, label = torch.randn(size.latents, device=size.device), torch.randint(NUM_CLASSES, size.latents[:1])
    label = label.to(size.device)
    works = {
        "SiT": sit_step(size, latents, label, "32-true"),
        "SiT, bf16": sit_step(size, latents, label, "bf16-mixed"),
        "products": products(size),
        "bf16": flowexp_step(size, latents, label),
    }
    missing = missing_compiler() if size.compiled else "takes longer than this size has"
    if not missing:
        works["bf16 + compile"] = flowexp_step(size, latents, label, compiled=True)
    timings = Comparison({name: stopwatch(work, size.device) for name, work in works.items()}).run(rounds, warmup=2)
    best = "bf16" if missing else "bf16 + compile"
    has_amx = size.device.type == "cpu" and torch.cpu._is_amx_tile_supported()
    rows = [
        compare(timings, best, "SiT", Promise(0.27) if has_amx else None),
        compare(timings, best, "SiT, bf16"),
        compare(timings, best, "products", Promise(1.3)),
        *(compare(timings, name, "SiT") for name in ("SiT, bf16", "products", *(["bf16"] if best != "bf16" else []))),
    ]
    return Result(rows, [f"compile left out: {missing}"] if missing else [])


def sit_step(size: Size, latents: Tensor, label: Tensor, precision: str) -> Callable[[], None]:
    """A function that takes SiT's next step."""
    training = SiTTraining(SiT(latents.shape[2], latents.shape[1], size.depth, WIDTH, HEADS).to(size.device))

    def take() -> None:
        with size.autocast(precision):
            training.step(latents, label)

    return take


def flowexp_step(size: Size, latents: Tensor, label: Tensor, compiled: bool = False) -> Callable[[], None]:
    """A function that takes flowexp's next step in bf16."""
    options: dict[str, Any] = {"resolution": latents.shape[2], "channels": latents.shape[1]}
    network = create_backbone("sit_s2", depth=size.depth, num_classes=NUM_CLASSES, **options).to(size.device)
    if compiled:
        network.compile_blocks()
    return Training(network, latents, label, size).fm_step("bf16-mixed")


def products(size: Size) -> Callable[[], None]:
    """A function that multiplies the matrices of all blocks, forward and backward, in bf16."""
    batch, tokens = size.latents[0], (size.latents[2] // 2) ** 2
    options: dict[str, Any] = {"device": size.device, "dtype": torch.bfloat16, "requires_grad": True}
    wide = [(WIDTH, 3 * WIDTH), (WIDTH, WIDTH), (WIDTH, 4 * WIDTH), (4 * WIDTH, WIDTH)]
    linear = [(torch.randn(batch * tokens, i, **options), torch.randn(i, o, **options)) for i, o in wide]
    shape = (batch, HEADS, tokens, WIDTH // HEADS)
    scores = torch.randn(shape, **options), torch.randn(shape, **options).transpose(2, 3)
    mixed = torch.randn(*shape[:3], tokens, **options), torch.randn(shape, **options)
    pairs = [*linear, scores, mixed]
    gradients = [(left @ right).detach() for left, right in pairs]

    def take() -> None:
        for _ in range(size.depth):
            for (left, right), gradient in zip(pairs, gradients, strict=True):
                torch.autograd.grad(left @ right, (left, right), gradient)

    return take
