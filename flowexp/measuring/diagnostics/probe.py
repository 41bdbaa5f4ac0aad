"""Probes (LCF section A.4.3): how well classes can be read off a layer at each noise level, by three readings.

* "converged": multinomial logistic regression on standardised features, to convergence. Dip, onset and peak are its.
* "paper": the linear probe of LCF Table 3 or of DDAE. Its few updates of features whose scale grows with t measure that
  scale too, unless it has converged.
* "knn": votes of nearest neighbours; nothing is fitted.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.diagnostics.convergence import ProbeFit, gradient_at_end
from flowexp.measuring.diagnostics.knn import knn_correct
from flowexp.measuring.diagnostics.logistic_regression import fit_logistic
from flowexp.measuring.diagnostics.noised import Prepare, noised_batches

OPTIMIZERS = ("adamw", "adam")
READINGS = ("converged", "paper", "knn")  # in the order of trust where one is to be chosen
_WEIGHTS, _ORDER = 0, 1  # keep the streams of initial weights and of batch orders apart


@dataclass(frozen=True)
class ProbeProtocol:
    """How a linear probe is fitted, and where it departs from the paper that it is named after.

    epochs, batch_size, lr, weight_decay, optimizer: see `fit_probes`. departures: for the record beside a number.

    Raises:
        ValueError: an unknown optimizer, or a setting with which nothing is fitted.
    """

    name: str
    optimizer: str
    weight_decay: float
    epochs: int = 15
    batch_size: int = 128
    lr: float = 1e-3
    departures: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.optimizer not in OPTIMIZERS:
            raise ValueError(f"the probe's optimizer must be one of {', '.join(OPTIMIZERS)}, got {self.optimizer!r}")
        if min(self.epochs, self.batch_size) < 1 or self.lr <= 0 or self.weight_decay < 0:
            raise ValueError(
                "a probe needs at least 1 epoch, batches of at least 1, a positive lr and a weight_decay of at least "
                f"0, got {self.epochs}, {self.batch_size}, {self.lr} and {self.weight_decay}"
            )
        if self.optimizer == "adam" and self.weight_decay:
            raise ValueError(
                f"adam has no weight decay, got {self.weight_decay}: take adamw, or leave weight_decay out"
            )

    def fit(self) -> dict[str, Any]:
        """The options of `fit_probes`."""
        return {key: value for key, value in vars(self).items() if key not in ("name", "departures")}

    def updates(self, num_images: int) -> int:
        """Steps of the optimizer in a fit to `num_images`."""
        return self.epochs * -(-num_images // self.batch_size)

    def but(self, **settings: Any) -> ProbeProtocol:
        """The same with some settings that may be others, each a departure; one that is None stays as it is."""
        own, given = self.fit(), {key: value for key, value in settings.items() if value is not None}
        if given.get("optimizer") == "adam":
            given.setdefault("weight_decay", 0.0)
        changed = {key: value for key, value in given.items() if value != own[key]}
        told = tuple(f"{key} {value}, not {own[key]}" for key, value in changed.items())
        return replace(self, **changed, departures=(*self.departures, *told))


_ONCE = "features are extracted once: one draw of noise per image and level, not one per epoch"
PROTOCOLS = {
    protocol.name: protocol
    for protocol in (
        ProbeProtocol(
            "ddae",
            optimizer="adam",
            weight_decay=0.0,
            departures=(_ONCE, "no augmentation: DDAE crops (padding 4) and flips the training images"),
        ),
        ProbeProtocol(
            "lcf",
            optimizer="adamw",  # Table 3; section 6.1 says Adam
            weight_decay=0.01,
            departures=(_ONCE, "cosine schedule per epoch, as DDAE: LCF gives none"),
        ),
    )
}


def create_protocol(name: str) -> ProbeProtocol:
    """The protocol of that name: "lcf" (LCF Table 3) or "ddae" (DDAE's released linear probe)."""
    if name not in PROTOCOLS:
        raise ValueError(f"the probe's protocol must be one of {', '.join(PROTOCOLS)}, got {name!r}")
    return PROTOCOLS[name]


@torch.no_grad()
def extract_features(
    backbone: Backbone,
    interpolant: Interpolant,
    images: Tensor,
    levels: Collection[float],
    taps: Sequence[int],
    seed: int,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    prepare: Prepare | None = None,
) -> Tensor:
    """Features (levels * taps, N, D) float32 on the device: the mean of the tokens after each tap, at each level.

    One pass per level, which stops at the deepest tap; a class-conditional network sees no label. As in DDAE's probe
    the features are not normalised. Unlike there, an image has one draw of noise per level, not one per epoch.

    images: (N, C, H, W). taps: blocks, from 1, ascending. prepare: from stored images to data, see `noised_batches`.
    """
    widths = [backbone.width_at(tap) for tap in taps]  # those of a U-Net differ: shorter features end in zeros
    found = torch.zeros(len(levels), len(taps), len(images), max(widths), device=device)
    for level, place in zip(levels, found, strict=True):
        for batch in noised_batches(images, level, seed, batch_size, device, prepare):
            xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
            tokens = backbone.features(xt, batch.t, None, taps)
            for tap, width, features in zip(taps, widths, place, strict=True):
                features[batch.rows, :width] = tokens[tap].float().mean(dim=1)
    return found.flatten(0, 1)


@dataclass(frozen=True, eq=False)
class ProbeResult:
    """Which of M held-out images each of H classifiers names correctly.

    correct: (H, M) bool. finite: (H,) bool, False for a head whose features are not. fits: how each head was fitted;
    empty where nothing is.
    """

    correct: Tensor
    finite: Tensor
    fits: Sequence[ProbeFit] = ()

    @property
    def accuracy(self) -> Tensor:
        """Share of correct classes, (H,) float64 and exact; NaN for a head whose features are not finite."""
        return self.correct.double().mean(dim=1).where(self.finite, torch.nan)

    @property
    def train_accuracy(self) -> Tensor:
        """The same of the images that each head was fitted to, (H,) float64."""
        return torch.tensor([fit.train_accuracy for fit in self.fits], dtype=torch.float64)


class LinearHeads(nn.Module):
    """H linear classifiers side by side, all starting from the same weights (those of nn.Linear's law).

    Arguments:
        num_heads: H.
        num_features: D.
        num_classes: C.
        seed: of the initial weights.
    """

    def __init__(self, num_heads: int, num_features: int, num_classes: int, seed: int = 0) -> None:
        super().__init__()
        generator, bound = keyed_generator(seed, _WEIGHTS), num_features**-0.5
        first = torch.empty(num_features + 1, num_classes).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(first[:-1].repeat(num_heads, 1, 1))
        self.bias = nn.Parameter(first[-1:].repeat(num_heads, 1, 1))

    def forward(self, features: Tensor) -> Tensor:
        """Logits (H, B, C) for features (H, B, D)."""
        return torch.baddbmm(self.bias, features, self.weight)


def fit_probes(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    epochs: int = 15,
    batch_size: int = 128,
    lr: float = 1e-3,
    weight_decay: float = 0.01,
    optimizer: str = "adamw",
    seed: int = 0,
) -> ProbeResult:
    """Fits a linear classifier to each of H sets of features (H, N, D) of the same images, all in one batched problem.

    Cross-entropy, and the learning rate annealed by a cosine once an epoch (DDAE; LCF gives no schedule). The defaults
    are LCF's Table 3; its section 6.1 says Adam, which "adam" is, without weight decay. All heads see the same batches,
    and each ends as it would alone.

    Raises:
        ValueError: an unknown optimizer.
    """
    device = train_features.device
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)
    heads = LinearHeads(len(train_features), train_features.shape[2], num_classes, seed).to(device)
    descent = _create_optimizer(optimizer, heads, lr, weight_decay)
    annealing = torch.optim.lr_scheduler.CosineAnnealingLR(descent, epochs)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = torch.randperm(len(train_labels), generator=keyed_generator(seed, _ORDER, epoch)).to(device)
            for rows in order.split(batch_size):
                _step(heads, descent, train_features[:, rows], train_labels[rows])
            annealing.step()
    ends = [
        gradient_at_end(features, train_labels, weight, bias[0])
        for features, weight, bias in zip(train_features, heads.weight, heads.bias, strict=True)
    ]
    return _result(heads, ends, train_features, train_labels, test_features, test_labels)


def fit_converged(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    seed: int = 0,
) -> ProbeResult:
    """A logistic regression to convergence for each of H sets of features (H, N, D), see `fit_logistic`."""
    device = train_features.device
    train_labels, test_labels = train_labels.to(device), test_labels.to(device)
    heads = LinearHeads(len(train_features), train_features.shape[2], num_classes).to(device)
    ends: list[tuple[float, float | None, float | None]] = []
    for features, weight, bias in zip(train_features, heads.weight.data, heads.bias.data, strict=True):
        if not features.isfinite().all():
            weight.fill_(torch.nan)
            ends.append((math.nan, None, None))
            continue
        fit = fit_logistic(features, train_labels, num_classes, seed)
        weight.copy_(fit.weight)
        bias.copy_(fit.bias)
        ends.append((fit.gradient_left, None, fit.penalty))
    return _result(heads, ends, train_features, train_labels, test_features, test_labels)


def _result(
    heads: LinearHeads,
    ends: Sequence[tuple[Any, ...]],
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
) -> ProbeResult:
    """What the heads know. ends: the columns of `ProbeFit` behind the train accuracy, of each head."""
    correct, finite = _correct(heads, test_features, test_labels)
    right, fitted = _correct(heads, train_features, train_labels)
    shares = right.double().mean(dim=1).where(fitted, torch.nan).tolist()
    return ProbeResult(correct, finite, [ProbeFit(share, *end) for share, end in zip(shares, ends, strict=True)])


def _create_optimizer(name: str, heads: LinearHeads, lr: float, weight_decay: float) -> torch.optim.Optimizer:
    if name == "adamw":
        return torch.optim.AdamW(heads.parameters(), lr=lr, weight_decay=weight_decay, fused=True)
    if name == "adam":
        return torch.optim.Adam(heads.parameters(), lr=lr, fused=True)
    raise ValueError(f"the probe's optimizer must be one of {', '.join(OPTIMIZERS)}, got {name!r}")


def _step(heads: LinearHeads, descent: torch.optim.Optimizer, features: Tensor, labels: Tensor) -> None:
    """One step of every head: the sum of their losses has for each head's weights the gradient of its own loss."""
    logits = heads(features)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.repeat(len(logits)), reduction="sum") / len(labels)
    descent.zero_grad()
    loss.backward()
    descent.step()


@torch.no_grad()
def _correct(heads: LinearHeads, features: Tensor, labels: Tensor, batch_size: int = 4096) -> tuple[Tensor, Tensor]:
    """Which images each head names correctly, (H, M) bool, and whether its logits are finite, (H,), on the CPU."""
    right, finite = [], torch.ones(len(features), dtype=torch.bool, device=features.device)
    for part, answer in zip(features.split(batch_size, dim=1), labels.split(batch_size), strict=True):
        logits = heads(part)
        right.append(logits.argmax(dim=2) == answer)
        finite &= logits.isfinite().all(dim=2).all(dim=1)
    return torch.cat(right, dim=1).cpu(), finite.cpu()


def read_features(
    reading: str,
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    protocol: str | ProbeProtocol = "lcf",
    seed: int = 0,
) -> ProbeResult:
    """One reading of H sets of features (H, N, D). Raises ValueError where there is none of that name."""
    data = (train_features, train_labels, test_features, test_labels, num_classes)
    if reading == "converged":
        return fit_converged(*data, seed=seed)
    if reading == "paper":
        chosen = create_protocol(protocol) if isinstance(protocol, str) else protocol
        return fit_probes(*data, seed=seed, **chosen.fit())
    if reading == "knn":
        return ProbeResult(*knn_correct(*data))
    raise ValueError(f"a reading must be one of {', '.join(READINGS)}, got {reading}")
