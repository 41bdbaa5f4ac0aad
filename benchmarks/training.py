"""What a training step costs: under Lightning, with other objectives, in other precisions, and its EMA alone."""

from __future__ import annotations

import os
import shutil
import tempfile
from copy import deepcopy
from pathlib import Path

import torch

from benchmarks.data import enlarged_digits, one_batch
from benchmarks.fitting import lightning_fit
from benchmarks.sizes import Size
from benchmarks.steps import BareLoop, Training, trained_parameters
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.backbones import Backbone
from flowexp.ema import ExponentialMovingAverage
from flowexp.modules import FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching


def lightning(size: Size) -> Result:
    """An FM step in a Trainer made by `build_trainer`, against the same step in a bare PyTorch loop.

    12 x 384 x 6, the whole step of both: batch, draws, forward, backward, clipping, AdamW, EMA. Short fits and short
    bare loops take turns; a fit is timed from the end of its first step to the end of its last, and logs and draws the
    bar once in between (a real run every 50 steps, so on a CPU, where fits are short, this is the worse case). The
    bare loop draws t and noise from PyTorch's global generator: what our keyed draws cost counts as Lightning's.
    """
    data = enlarged_digits(size)
    network = size.create_network()
    loop = BareLoop(deepcopy(network), data.train, size)
    with tempfile.TemporaryDirectory() as folder:
        contestants = {
            "bare loop": stopwatch(loop.step, size.device, size.fit_steps),
            "Lightning": lightning_fit(FlowMatching(network), data, size, Path(folder)),
        }
        timings = Comparison(contestants).run(size.rounds)
    return Result([compare(timings, "Lightning", "bare loop", Promise(1.03))])


def objectives(size: Size) -> Result:
    """An LCF step at T_min = 100 and an MAFM step, against an FM step on the same batch, t and noise.

    12 x 384 x 6, without a Trainer: draw, loss, backward, clipping, AdamW, EMA. A tenth of the rows are LCF's anchors.
    """
    network = size.create_network()
    training = Training(network, one_batch(size), size)
    modules = {
        "FM": FlowMatching(network),
        "LCF": LocalContrastiveFlow(T_min=100, backbone=network),
        "MAFM": MagnitudeAwareFlowMatching(backbone=network),
    }
    steps = {name: stopwatch(training.stepper(module), size.device, size.steps) for name, module in modules.items()}
    timings = Comparison(steps).run(size.rounds)
    return Result([compare(timings, name, "FM", Promise(1.02)) for name in ("LCF", "MAFM")])


def precision(size: Size) -> Result:
    """An FM step under bf16 autocast, and with every block compiled too, against fp32.

    12 x 384 x 6, without a Trainer. The compiler's own time falls into the warm-up.
    """
    missing = missing_compiler() if size.compiled else "takes longer than this size has"
    contestants = {name: fm_step(size, name) for name in ("fp32", "bf16", *([] if missing else ["bf16 + compile"]))}
    timings = Comparison(contestants).run(size.few_rounds)
    rows = [compare(timings, name, "fp32") for name in contestants if name != "fp32"]
    if missing:
        return Result(rows, [f"compile left out: {missing}"])
    return Result([*rows, compare(timings, "bf16 + compile", "bf16")])


def ema(size: Size) -> Result:
    """An update of `ExponentialMovingAverage`, against a Python loop over the parameters and against a training step.

    12 x 384 x 6, all its parameters in fp32. The loop is SiT's: mul_ and add_ on each tensor.
    """
    network = size.create_network()
    average = ExponentialMovingAverage(trained_parameters(network))
    training = Training(network, one_batch(size), size)
    contestants = {
        "FM step": stopwatch(training.stepper(FlowMatching(network)), size.device, size.steps),
        "EMA update": stopwatch(average.update, size.device, repeats=5),
        "loop over tensors": stopwatch(lambda: update_by_loop(network, average), size.device, repeats=5),
    }
    timings = Comparison(contestants).run(size.rounds)
    return Result([compare(timings, "EMA update", against) for against in ("loop over tensors", "FM step")])


def fm_step(size: Size, form: str) -> Contestant:
    """An FM step of a network of its own, in one of the forms of `precision`."""
    network = size.create_network()
    if form.endswith("compile"):
        network.compile_blocks()
    training = Training(network, one_batch(size), size)
    arithmetic = "32-true" if form == "fp32" else "bf16-mixed"
    return stopwatch(training.stepper(FlowMatching(network), arithmetic), size.device, size.steps)


def missing_compiler() -> str:
    """Why torch.compile cannot run here; empty if it can."""
    candidates = (os.environ.get("CXX", "g++"), "c++", "clang++")
    return "" if any(shutil.which(name) for name in candidates) else "no C++ compiler found (g++, clang++ or $CXX)"


@torch.no_grad()
def update_by_loop(network: Backbone, average: ExponentialMovingAverage) -> None:
    """The same average as `average.update()` takes, tensor by tensor."""
    for name, parameter in trained_parameters(network).items():
        average.averages[name].mul_(average.decay).add_(parameter, alpha=1 - average.decay)
