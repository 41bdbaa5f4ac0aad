"""How much of a card is used: training steps and samples of SiT against the peak, per second, and in memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from benchmarks.peaks import name_of, peak_of
from benchmarks.sizes import CPU, Size
from benchmarks.step import NUM_CLASSES
from benchmarks.steps import Training
from benchmarks.table import Figures, Result, Row, compare
from benchmarks.timing import Comparison, Timings, stopwatch, wait_for
from benchmarks.training import missing_compiler
from flowexp.backbones import Backbone, create_backbone
from flowexp.cli.assembly.compiling import operations
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler

PASSES = 3  # of a training step in forward passes: a backward pass is two
PRODUCT, AT_PEAK = "product", "its FLOP at the peak"


def mfu(size: Size, rounds: int) -> Result:
    """Training steps and samples of SiT-S/2 (12 x 384 x 6), on a GPU of SiT-XL/2 too, against their FLOP at the peak.

    The ratio is the model's FLOP utilisation (MFU; Chowdhery et al. 2022, appendix B): the time that the products of
    the network would take at the peak of the device, over the time that they take; nothing that is computed twice
    counts twice. bf16 and compiled, 4 x 32 x 32 latents, 1000 classes; a step has draws, clipping, AdamW and EMA,
    samples are Euler's in 20 steps without guidance. The peak is the data sheet's (benchmarks/peaks.py) or that of
    peak=TFLOPS; for another device it is what a large product of two matrices reaches in the same rounds.
    """
    uses = [use_of(name, batch, size, rounds) for name, batch in size.networks.items()]
    notes = dict.fromkeys(note for use in uses for note in use.notes)
    return Result([row for use in uses for row in use.rows], [*notes], [line for use in uses for line in use.figures])


def use_of(name: str, batch: int, size: Size, rounds: int) -> Result:
    """Of one network, with the largest batch that fits: half of `batch` after half of it, if need be."""
    try:
        return _use_of(name, batch, size, rounds)
    except torch.OutOfMemoryError:
        if batch == 1:
            raise
    torch.compiler.reset()
    torch.accelerator.empty_cache()
    return use_of(name, batch // 2, size, rounds)


def _use_of(name: str, batch: int, size: Size, rounds: int) -> Result:
    network = create_network(name, size)
    flop = batch * operations(network)
    compiled = size.compiled and not missing_compiler()
    if compiled:
        network.compile_blocks()
    step, samples = f"{name} step", f"{name} samples"
    works = {step: training_step(network, batch, size), samples: draw_samples(network, batch, size)}
    flops = {step: PASSES * flop, samples: size.solver_steps * flop}
    memory = {work: peak_memory(take, size.device) for work, take in works.items()}
    peak = size.peak or peak_of(name_of(size.device))
    if peak is None:
        works[PRODUCT] = product(size)
    contestants = {work: stopwatch(take, size.device, size.steps) for work, take in works.items()}
    timings = Comparison(contestants).run(rounds, warmup=2)
    rows = [utilisation(timings, work, flops[work], peak, size) for work in flops]
    figures = [figures_of(row, batch, flops[row.against], memory[row.against]) for row in rows]
    return Result(rows, notes_of(peak, compiled, size), figures)


def create_network(name: str, size: Size) -> Backbone:
    """SiT's network for latents, of as many blocks as its name says or as `size.network_depth`."""
    options: dict[str, Any] = {"resolution": size.latents[2], "channels": size.latents[1], "num_classes": NUM_CLASSES}
    if size.network_depth:
        options["depth"] = size.network_depth
    torch.manual_seed(0)
    return create_backbone(name, **options).to(size.device)


def training_step(network: Backbone, batch: int, size: Size) -> Callable[[], None]:
    """A function that takes the next step of flow matching on one batch of latents."""
    latents = torch.randn(batch, *size.latents[1:], device=size.device)
    label = torch.arange(batch, device=size.device) % NUM_CLASSES
    return Training(network, latents, label, size).fm_step("bf16-mixed")


def draw_samples(network: Backbone, batch: int, size: Size) -> Callable[[], None]:
    """A function that draws one batch of latents."""
    sampler, label = Sampler("euler", size.solver_steps), torch.arange(batch) % NUM_CLASSES

    def sample() -> None:
        network.eval()
        with size.autocast("bf16-mixed"):
            drawn = sampler.sample(network, Linear(), range(batch), size.latents[1:], 0, label, size.device)
        network.train()
        assert drawn.nfe == size.solver_steps

    return sample


def product(size: Size) -> Callable[[], None]:
    """A function that multiplies two square matrices in bf16."""
    left, right = (torch.randn(size.product, size.product, dtype=torch.bfloat16, device=size.device) for _ in range(2))

    def multiply() -> None:
        left @ right

    return multiply


def peak_memory(work: Callable[[], None], device: torch.device) -> int | None:
    """Bytes that the device's allocator held at most while `work` was done once; None on a CPU."""
    if device.type == "cpu":
        return None
    work()  # what stays, such as AdamW's moments, is there before
    wait_for(device)
    torch.accelerator.reset_peak_memory_stats(device)
    work()
    wait_for(device)
    return torch.accelerator.max_memory_allocated(device)


def utilisation(timings: Timings, work: str, flop: float, peak: float | None, size: Size) -> Row:
    """The row of a network's step or samples, whose products take `flop`."""
    if peak is None:
        timings = timings.times(PRODUCT, flop / (2 * size.product**3), AT_PEAK)
    else:
        timings = Timings({**timings.seconds, AT_PEAK: [flop / peak] * len(timings.seconds[work])})
    return compare(timings, AT_PEAK, work)


def figures_of(row: Row, batch: int, flop: float, memory: int | None) -> Figures:
    """The line of a network's step or samples in the second table."""
    seconds = row.seconds[1]
    columns = {
        "batch": str(batch),
        "images per second": f"{batch / seconds:.4g}",
        "TFLOP/s": f"{flop / seconds / 1e12:.3g}",
        "MFU": f"{100 * row.ratio.median:.3g} %",
        "memory at most": "" if memory is None else f"{memory / 2**30:.2f} GiB",
    }
    return Figures(row.against, columns)


def notes_of(peak: float | None, compiled: bool, size: Size) -> list[str]:
    """The peak and where it comes from, and what was left out."""
    if peak is not None:
        told = "peak=" if size.peak else f"the data sheet of {name_of(size.device)}"
        notes = [f"the peak is {peak / 1e12:g} TFLOP/s, by {told}"]
    else:
        card = "" if size.device == CPU else f": {name_of(size.device)} is not in benchmarks/peaks.py"
        notes = [
            f"the peak is the rate of a product of {size.product} x {size.product} matrices{card}; "
            "peak=TFLOPS takes a data sheet's"
        ]
    missing = missing_compiler() if size.compiled else "takes longer than this size has"
    return notes if compiled else [*notes, f"compile left out: {missing}"]
