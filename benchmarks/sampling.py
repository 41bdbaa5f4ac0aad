"""What a sampler adds to the network calls that it makes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from benchmarks.sizes import Size
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, stopwatch
from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler


def solver(size: Size, rounds: int) -> Result:
    """Samples by Euler, Euler with SSC and Euler-Maruyama in 20 steps, against 20 bare calls of the same network.

    12 x 384 x 6; everything from the draw of the noise to the finished sample counts, on top of the calls. The last row
    is what SSC costs: Euler with it, against Euler without.
    """
    network = size.create_network().eval()
    samplers = {
        "Euler": Sampler("euler", size.solver_steps),
        "Euler + SSC": Sampler("euler", size.solver_steps, s0=1.1, s1=1.0),
        "Euler-Maruyama": Sampler("euler_maruyama", size.solver_steps),
    }
    calls = f"{size.solver_steps} bare calls"
    contestants = {calls: stopwatch(bare_calls(network, size), size.device)}
    for name, sampler in samplers.items():
        contestants[name] = stopwatch(samples(sampler, network, size), size.device)
    timings = Comparison(contestants).run(rounds)
    rows = [compare(timings, name, calls, Promise(1.02)) for name in samplers]
    return Result([*rows, compare(timings, "Euler + SSC", "Euler")])


def bare_calls(network: Backbone, size: Size) -> Callable[[], None]:
    """As many network calls as the solver has steps, on one batch, without gradient."""
    shape = (size.sample_batch_size, size.channels, size.resolution, size.resolution)
    x, t = torch.randn(shape, device=size.device), torch.rand(shape[0], device=size.device)

    def calls() -> None:
        with torch.no_grad(), size.autocast():
            for _ in range(size.solver_steps):
                network(x, t)

    return calls


def samples(sampler: Sampler, network: Backbone, size: Size) -> Callable[[], None]:
    """One batch of samples."""
    indices = range(size.sample_batch_size)
    shape = (size.channels, size.resolution, size.resolution)

    def sample() -> None:
        with size.autocast():
            drawn = sampler.sample(network, Linear(), indices, shape, seed=0, device=size.device)
        assert drawn.nfe == size.solver_steps

    return sample
