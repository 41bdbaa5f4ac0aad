"""What the linear probe saves: features read once per noise level, and all classifiers fitted together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.data import enlarged_digits
from benchmarks.sizes import Size
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.backbones import Backbone
from flowexp.callbacks.probe import LEVELS
from flowexp.data import Images, to_float
from flowexp.diagnostics import ProbeResult, extract_features, fit_probes
from flowexp.interpolants import Linear


def probe(size: Size) -> Result:
    """Ten noise levels probed one by one with the network in the loop, and ten fits one by one, against all at once.

    12 x 384 x 6, block 8, 15 epochs (LCF Table 3) for both. "One by one" is DDAE's way: in every epoch each image gets
    new noise and passes through the network again (here no further than to the block that is read, as in ours). It is
    timed at one level and counted ten times: the levels cost the same. The second row compares the fits alone, on
    features already read: `fit_probes` once with ten heads against ten times with one.
    """
    whole = whole_probe(size)
    fits = fits_alone(size)
    timings = Comparison(whole).run(size.few_rounds)
    alone = Comparison(fits).run(size.few_rounds)
    return Result(
        [
            compare(timings, "levels one by one", "all levels", Promise(5, at_least=True)),
            compare(alone, "ten fits", "all fits at once"),
        ]
    )


def whole_probe(size: Size) -> dict[str, Contestant]:
    """From stored images to the accuracies of all levels."""
    data, network = enlarged_digits(size), size.create_network().eval()
    train = data.train.subset(size.probe_images).to(size.device)
    test = data.test.subset(max(1, size.probe_images // 4)).to(size.device)
    old_way = ProbeInTheLoop(network, train, test, data.num_classes, size)
    one_level = stopwatch(lambda: old_way.accuracy(LEVELS[1]), size.device)
    return {
        "all levels": stopwatch(lambda: probe_all(network, train, test, data.num_classes, size), size.device),
        "levels one by one": lambda: len(LEVELS) * one_level(),
    }


def probe_all(network: Backbone, train: Images, test: Images, num_classes: int, size: Size) -> Tensor:
    """Accuracy at every level, (10,), as the probe monitor measures it."""
    features = []
    for seed, images in enumerate((train.images, test.images)):
        with size.autocast():
            taps = [network.default_tap]
            read = extract_features(network, Linear(), images, LEVELS, taps, seed, device=size.device, prepare=to_float)
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
