"""How near to the bare networks' rate samples are measured and features read, and the memory of many samples."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from time import perf_counter, process_time

import torch
from torch import Tensor

from benchmarks.data import enlarged_digits
from benchmarks.sizes import Size, smoke_size
from benchmarks.table import Promise, Result, Row, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.backbones import Backbone
from flowexp.data import to_float
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.integrations.encoders import FeatureNet
from flowexp.measuring.callbacks.sample_metrics import SampleMetrics
from flowexp.measuring.diagnostics import extract_features
from flowexp.measuring.metrics import FeatureCollector, Needs
from flowexp.objectives import FlowMatching

FEW = 500  # samples
RATE = Promise(0.95, at_least=True)
LEVELS = (0.02, 0.2)
FEATURES = 128  # images whose features are read at once


def evaluate(size: Size, rounds: int) -> Result:
    """The images per second of `evaluate`, against those of bare calls of its networks on batches that lie ready.

    12 x 384 x 6, samples in 10 Euler steps and features of the probe to block 8 at two levels, in fp32, the default of
    measurements. From the draw of the noise to the sums of a Frechet distance; the distance itself, once for all
    samples, is left out. The second row is the encoder's share, and the last: the peak of a process
    that measures 50,000 samples of a network without depth, against 500. Processor's seconds on a CPU.
    """
    timings = Comparison(rates(size)).run(rounds)
    return Result(
        [
            compare(timings, "bare network and encoder", "samples and features", RATE),
            compare(timings, "bare encoder", "samples and features"),
            compare(timings, "bare passes to the tap", "probe's features", RATE),
            *peaks(peak_of, size.num_samples, FEW, size),
        ]
    )


def peak_of_this_process() -> float:
    """MB since the process began; `getrusage` would give that of the process that started it where it is higher."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1000


def peaks(peak_of: Callable[[int], float], many: int, few: int, size: Size) -> list[Row]:
    """The row of the memory, whose processes take longer than a smoke test has."""
    if not size.judged:
        return []
    found = Comparison({f"memory of {num:,}": partial(peak_of, num) for num in (many, few)}).run(1, warmup=0)
    return [replace(compare(found, f"memory of {many:,}", f"memory of {few:,}", Promise(1.1)), unit="MB")]


def rates(size: Size) -> dict[str, Contestant]:
    """The same number of images by each."""
    network, encoder = size.create_network().eval(), create_encoder().to(size.device)
    steps = min(10, size.solver_steps)
    images = torch.randint(256, (FEATURES if size.judged else 4, *picture(size)), dtype=torch.uint8).to(size.device)
    work: dict[str, Callable[[], object]] = {
        "samples and features": measuring(network, encoder, size, steps),
        "bare network and encoder": lambda: (calls(network, size, steps), bare_encoder(encoder, size)),
        "bare encoder": partial(bare_encoder, encoder, size),
        "probe's features": partial(read, network, images, size),
        "bare passes to the tap": passes(network, images, size),
    }
    clock = process_time if size.device.type == "cpu" else perf_counter
    return {name: stopwatch(each, size.device, clock=clock) for name, each in work.items()}


def create_encoder() -> FeatureNet:
    """The one that needs no download."""
    from flowexp.integrations.encoders import as_encoder

    return as_encoder("efficientnet_lite")


def picture(size: Size) -> tuple[int, int, int]:
    """(C, H, W)."""
    return size.channels, size.resolution, size.resolution


def measuring(network: Backbone, encoder: FeatureNet, size: Size, steps: int) -> Callable[[], None]:
    """A batch of samples, as the monitor draws it and adds its features."""
    module = FlowMatching(network, sampler=Sampler("euler", steps)).to(size.device)
    monitor = SampleMetrics(encoder, num_samples=size.sample_batch_size, batch_size=size.sample_batch_size, cache=None)
    data = enlarged_digits(replace(size, num_images=size.batch_size))

    def measure() -> None:
        needs = Needs(moments=("features",))
        collector = FeatureCollector(monitor.num_samples, encoder.dims, needs, device=size.device)
        with torch.no_grad():
            monitor.add_samples(collector, module, data, seed=0)

    return measure


@torch.no_grad()
def calls(network: Backbone, size: Size, steps: int) -> Tensor:
    """As many calls of the network as a batch of samples takes."""
    x = torch.zeros(size.sample_batch_size, *picture(size), device=size.device)
    t = torch.full((len(x),), 0.5, device=size.device)
    for _ in range(steps):
        velocity = network(x, t)
    return velocity


def bare_encoder(encoder: FeatureNet, size: Size) -> Tensor:
    """The encoder's pass over a batch."""
    pictures = torch.zeros(size.sample_batch_size, *picture(size), dtype=torch.uint8, device=size.device)
    return encoder(pictures)


def read(network: Backbone, images: Tensor, size: Size) -> Tensor:
    """Features as the probe reads them."""
    taps = [network.default_tap]
    return extract_features(network, Linear(), images, LEVELS, taps, 0, device=size.device, prepare=to_float)


def passes(network: Backbone, images: Tensor, size: Size) -> Callable[[], None]:
    """Passes to the same block, of data that is there already."""
    x = to_float(images)
    t = torch.full((len(x),), 0.5, device=size.device)

    @torch.no_grad()
    def run() -> None:
        for _ in LEVELS:
            network.features(x, t, None, [network.default_tap])

    return run


class Tokens(FeatureNet):
    """Means of 2 x 2 pixels, a stand-in that costs next to nothing."""

    name, dim = "stand_in", 48

    def __init__(self) -> None:
        super().__init__()
        self.freeze()

    def features(self, images: Tensor) -> Tensor:
        return torch.nn.functional.avg_pool2d(images.float(), 2).flatten(1)

    def protocol(self) -> dict[str, str]:
        return {"encoder": self.name}


def peak_of(num: int) -> float:
    """MB of a process that measures so many samples."""
    command = [sys.executable, "-m", "benchmarks.evaluating", str(num)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(num: int) -> None:
    """Draws `num` samples of 8 x 8 in one step, measures them, and prints the peak of this process's memory, MB."""
    size = replace(smoke_size(), overrides={"depth": 1})
    module = FlowMatching(size.create_network().eval(), sampler=Sampler("euler", 1))
    monitor = SampleMetrics(Tokens(), num_samples=num, batch_size=250, cache=None)
    monitor.run(module, enlarged_digits(size), None, 0)
    print(peak_of_this_process())


if __name__ == "__main__":
    main(int(sys.argv[1]))
