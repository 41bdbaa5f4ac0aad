"""What a training step costs: under Lightning, with other objectives, in other precisions, and its EMA alone."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import torch

from benchmarks.data import enlarged_digits
from benchmarks.fitting import fit_in_turns
from benchmarks.sizes import Size
from benchmarks.steps import BareLoop, Training, trained_parameters
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, stopwatch
from flowexp.backbones import Backbone
from flowexp.cli.assembly.compiling import has_compiler
from flowexp.objectives import FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching
from flowexp.training.ema import ExponentialMovingAverage


def lightning(size: Size, rounds: int) -> Result:
    """An FM step in a Trainer made by `build_trainer`, against the same step in a bare PyTorch loop.

    12 x 384 x 6, the whole step of both: batch, draws, forward, backward, clipping, AdamW, EMA. One long fit and the
    bare loop take turns of some steps each; the fit logs and draws its bar once in every turn (a real run every 50
    steps, so on a CPU, where turns are short, this is the worse case). The bare loop draws t and noise from PyTorch's
    global generator: what our keyed draws cost counts as Lightning's, and so does the look at the gradient's norm.
    """
    data = enlarged_digits(size)
    network = size.create_network()
    loop = BareLoop(deepcopy(network), data.train, size)
    bare_loop = stopwatch(loop.step, size.device, size.turn_steps)
    with tempfile.TemporaryDirectory() as folder:
        timings = fit_in_turns(FlowMatching(network), data, bare_loop, size, rounds, Path(folder))
    return Result([compare(timings, "Lightning", "bare loop", Promise(1.03))])


def objectives(size: Size, rounds: int) -> Result:
    """An LCF step at T_min = 100 and an MAFM step, against an FM step on the same batch, t and noise.

    12 x 384 x 6, without a Trainer: draw, loss, backward, clipping, AdamW, EMA. A tenth of the rows are LCF's anchors.
    """
    training = Training.of(size)
    network = training.network
    modules = {
        "FM": FlowMatching(network),
        "LCF": LocalContrastiveFlow(T_min=100, backbone=network),
        "MAFM": MagnitudeAwareFlowMatching(backbone=network),
    }
    steps = {name: stopwatch(training.stepper(module), size.device, size.steps) for name, module in modules.items()}
    timings = Comparison(steps).run(rounds)
    return Result([compare(timings, name, "FM", Promise(1.02)) for name in ("LCF", "MAFM")])


def precision(size: Size, rounds: int) -> Result:
    """An FM step under bf16 autocast, and with every block compiled too, against fp32; then LCF's against FM's.

    12 x 384 x 6, without a Trainer. On the command line these are `trainer.precision=bf16-mixed` and `compile=true`.
    The compiler's own time falls into the warm-up. LCF is at T_min = 100 and trains the compiled network in turns.
    """
    missing = missing_compiler() if size.compiled else "takes longer than this size has"
    steps = {"fp32": Training.of(size).fm_step("32-true"), "bf16": Training.of(size).fm_step("bf16-mixed")}
    if not missing:
        steps |= compiled_steps(size)
    contestants = {name: stopwatch(step, size.device, size.steps) for name, step in steps.items()}
    timings = Comparison(contestants).run(rounds, warmup=2)  # LCF's second step has other shapes
    pairs = [("bf16", "fp32"), *([] if missing else COMPILED_PAIRS)]
    rows = [compare(timings, this, against) for this, against in pairs]
    return Result(rows, [f"compile left out: {missing}"] if missing else [])


COMPILED_PAIRS = (
    ("bf16 + compile", "fp32"),
    ("bf16 + compile", "bf16"),
    ("LCF, bf16 + compile", "bf16 + compile"),
)


def compiled_steps(size: Size) -> dict[str, Callable[[], None]]:
    """Steps of FM and LCF on one network whose blocks are compiled."""
    training = Training.of(size)
    training.network.compile_blocks()
    lcf = LocalContrastiveFlow(T_min=100, backbone=training.network)
    return {
        "bf16 + compile": training.fm_step("bf16-mixed"),
        "LCF, bf16 + compile": training.stepper(lcf, "bf16-mixed"),
    }


def ema(size: Size, rounds: int) -> Result:
    """An update of `ExponentialMovingAverage`, against a Python loop over the parameters and against a training step.

    12 x 384 x 6, all its parameters in fp32. The loop is SiT's: mul_ and add_ on each tensor.
    """
    training = Training.of(size)
    network, average = training.network, training.ema
    contestants = {
        "FM step": stopwatch(training.fm_step(), size.device, size.steps),
        "EMA update": stopwatch(average.update, size.device, repeats=5),
        "loop over tensors": stopwatch(lambda: update_by_loop(network, average), size.device, repeats=5),
    }
    timings = Comparison(contestants).run(rounds)
    return Result([compare(timings, "EMA update", against) for against in ("loop over tensors", "FM step")])


def missing_compiler() -> str:
    """Why torch.compile cannot run here; empty if it can."""
    return "" if has_compiler() else "no C++ compiler found (g++, clang++ or $CXX)"


@torch.no_grad()
def update_by_loop(network: Backbone, average: ExponentialMovingAverage) -> None:
    """The same average as `average.update()` takes, tensor by tensor."""
    for name, parameter in trained_parameters(network).items():
        average.averages[name].mul_(average.decay).add_(parameter, alpha=1 - average.decay)
