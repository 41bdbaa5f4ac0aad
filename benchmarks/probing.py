"""What the linear probe saves: features read once per noise level, and all classifiers fitted together."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.data import enlarged_digits
from benchmarks.sizes import Size
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.backbones import Backbone
from flowexp.data import Images, to_float
from flowexp.flow.interpolants import Linear
from flowexp.measuring.callbacks.probe import LEVELS
from flowexp.measuring.diagnostics import ProbeResult, extract_features, fit_probes

TWENTY_LEVELS = tuple(k / 20 for k in range(20))


def probe(size: Size, rounds: int) -> Result:
    """Ten and twenty noise levels probed one by one with the network in the loop, and ten fits one by one, against all
    at once.

    12 x 384 x 6, block 8, 15 epochs (LCF Table 3) for both. "One by one" is DDAE's way: in every epoch each image gets
    new noise and passes through the network again (here no further than to the block that is read, as in ours). It is
    timed at one level and counted ten and twenty times: the levels cost the same. The last row compares the fits alone,
    on features already read: `fit_probes` once with ten heads against ten times with one.
    """
    whole = Comparison(whole_probe(size)).run(rounds)
    alone = Comparison(fits_alone(size)).run(rounds)
    return Result(
        [
            compare(whole.times(ONE, 10, "10 levels one by one"), "10 levels one by one", "10 levels", AT_LEAST[10]),
            compare(whole.times(ONE, 20, "20 levels one by one"), "20 levels one by one", "20 levels", AT_LEAST[20]),
            compare(alone, "ten fits", "all fits at once"),
        ]
    )


ONE = "one level in the loop"
AT_LEAST = {10: Promise(5, at_least=True), 20: Promise(10, at_least=True)}


def whole_probe(size: Size) -> dict[str, Contestant]:
    """From stored images to the accuracies of all levels."""
    data, network = enlarged_digits(size), size.create_network().eval()
    train = data.train.subset(size.probe_images).to(size.device)
    test = data.test.subset(min(max(1, size.probe_images // 4), len(data.test))).to(size.device)
    old_way = ProbeInTheLoop(network, train, test, data.num_classes, size)
    grids = {"10 levels": LEVELS, "20 levels": TWENTY_LEVELS}
    ours = {
        name: stopwatch(partial(probe_all, network, train, test, data.num_classes, levels, size), size.device)
        for name, levels in grids.items()
    }
    return {ONE: stopwatch(lambda: old_way.accuracy(LEVELS[1]), size.device), **ours}


def probe_all(
    network: Backbone, train: Images, test: Images, num_classes: int, levels: Sequence[float], size: Size
) -> Tensor:
    """Accuracy at every level, as the probe monitor measures it."""
    features = []
    for seed, images in enumerate((train.images, test.images)):
        with size.autocast():
            taps = [network.default_tap]
            read = extract_features(network, Linear(), images, levels, taps, seed, device=size.device, prepare=to_float)
        features.append(read)
    result = fit_probes(features[0], train.labels, features[1], test.labels, num_classes, epochs=size.probe_epochs)
    return result.accuracy


@dataclass(frozen=True)
class ProbeInTheLoop:
    """A linear probe at one noise level whose features are computed anew in every epoch, as in DDAE's linear probe."""

    network: Backbone
    train: Images
    test: Images
    num_classes: int
    size: Size

    def accuracy(self, level: float, batch_size: int = 128) -> float:
        """Share of correct classes on the test images, after the fit."""
        head = nn.Linear(self.network.width, self.num_classes, device=self.size.device)
        optimizer = torch.optim.AdamW(head.parameters(), lr=1e-3, fused=True)
        annealing = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, self.size.probe_epochs)
        for _ in range(self.size.probe_epochs):
            for rows in torch.randperm(len(self.train), device=self.size.device).split(batch_size):
                loss = F.cross_entropy(head(self.features(self.train.images[rows], level)), self.train.labels[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            annealing.step()
        answer = head(self.features(self.test.images, level)).argmax(dim=1)
        return float((answer == self.test.labels).float().mean())

    @torch.no_grad()
    def features(self, images: Tensor, level: float) -> Tensor:
        """Mean token after the probed block, (B, D), with new noise."""
        data, tap = to_float(images), self.network.default_tap
        t = torch.full((len(data),), level, device=data.device)
        with self.size.autocast():
            tokens = self.network.features(Linear().interpolate(data, torch.randn_like(data), t), t, None, (tap,))[tap]
        return tokens.float().mean(dim=1)


def fits_alone(size: Size, width: int = 384, num_classes: int = 10) -> dict[str, Contestant]:
    """Classifiers on features that are there already; random ones, which cost the same."""
    train = torch.randn(len(LEVELS), size.fit_images, width, device=size.device)
    test = torch.randn(len(LEVELS), max(1, size.fit_images // 5), width, device=size.device)
    train_labels = torch.randint(num_classes, train.shape[1:2], device=size.device)
    test_labels = torch.randint(num_classes, test.shape[1:2], device=size.device)

    def fit(heads: slice) -> ProbeResult:
        return fit_probes(train[heads], train_labels, test[heads], test_labels, num_classes, epochs=size.probe_epochs)

    return {
        "all fits at once": stopwatch(lambda: fit(slice(None)), size.device),
        "ten fits": stopwatch(lambda: [fit(slice(k, k + 1)) for k in range(len(LEVELS))], size.device),
    }
