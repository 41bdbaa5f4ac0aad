"""How strongly an encoder reacts to semantic directions of its input and to all others (LCF Fig. 9, appendix A.2)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.losses.contrastive import POOLINGS, Pooling
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.derivatives import directional_derivative
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, Prepare, along_levels, further_noise

Encoder = Callable[[Tensor, Tensor], Tensor]


def tapped_encoder(backbone: Backbone, tap: int | None = None, pooling: Pooling = "mean") -> Encoder:
    """(xt, t) -> the features after block `tap`, without a label.

    tap: None is the backbone's default, 8 of 12. pooling: "mean" over the tokens, as the probe reads them, (B, D), or
    "flatten", all tokens as they are, (B, N, D).
    """
    check_choice("pooling", pooling, POOLINGS)
    tap = backbone.default_tap if tap is None else tap

    def encode(xt: Tensor, t: Tensor) -> Tensor:
        tokens = backbone.encode(xt, t, None, tap).tokens
        return tokens.mean(dim=1) if pooling == "mean" else tokens

    return encode


def semantic_subspace(
    images: Tensor, labels: Tensor, prepare: Prepare | None = None, tolerance: float = 1e-6
) -> Tensor:
    """An orthonormal basis (d, r) float64 of the span of class-mean differences of clean images, r < classes.

    The left singular vectors of the centred class means, in the order of their singular values; those below `tolerance`
    times the largest are no direction.

    images: (N, ...), d values each. labels: (N,) integers.
    """
    classes = labels.unique()
    if len(classes) < 2:
        raise ValueError(f"differences of class means need at least 2 classes, got {len(classes)}")
    means = torch.stack([_mean(images[(labels == label).to(images.device)], prepare) for label in classes])
    vectors, values, _ = torch.linalg.svd((means - means.mean(dim=0)).T, full_matrices=False)
    return vectors[:, values > tolerance * values[0]]


def principal_subspace(images: Tensor, rank: int, prepare: Prepare | None = None, batch_size: int = 1024) -> Tensor:
    """An orthonormal basis (d, rank) float64 of the `rank` directions in which clean images vary most.

    What LCF appendix A.2 names for data without classes. The covariance takes d^2 doubles and its eigenvectors d^3
    operations: for d of a few thousand.

    images: (N, ...), d values each.
    """
    if not 0 < rank < min(images[0].numel(), len(images)):
        raise ValueError(f"rank must lie below {min(images[0].numel(), len(images))}, got {rank}")
    mean = _mean(images, prepare)
    outer = torch.zeros(len(mean), len(mean), dtype=torch.float64, device=mean.device)
    for part in images.split(batch_size):
        centred = (part if prepare is None else prepare(part)).flatten(1).double() - mean
        outer.addmm_(centred.T, centred)
    return torch.linalg.eigh(outer).eigenvectors[:, -rank:].flip(1)


def _mean(images: Tensor, prepare: Prepare | None, batch_size: int = 1024) -> Tensor:
    parts = (part if prepare is None else prepare(part) for part in images.split(batch_size))
    total = sum(part.flatten(1).double().sum(dim=0) for part in parts)
    assert isinstance(total, Tensor)
    return total / len(images)


@dataclass(frozen=True)
class LevelJacobian(LevelPoint):
    """Gains of the encoder's Jacobian J at one level, averaged over noised images and unit directions.

    g_sem, g_noise: E|J v|^2 for unit v in the semantic subspace, and orthogonal to it; *_se: standard errors over
    images. ratio: g_sem / g_noise. frobenius: (E|J|_F^2)^(1/2). semantic_share: of |J|_F^2 in the subspace, which is
    r / d for an encoder that treats all directions alike.
    """

    g_sem: float
    g_noise: float
    g_sem_se: float
    g_noise_se: float
    ratio: float
    frobenius: float
    semantic_share: float


@torch.no_grad()
def encoder_jacobian(
    encode: Encoder,
    interpolant: Interpolant,
    images: Tensor,
    levels: Iterable[float],
    basis: Tensor,
    seed: int,
    num_probes: int = 4,
    **feed: Unpack[Feed],
) -> Curve[LevelJacobian]:
    """G_sem, G_noise and |J|_F of an encoder by JVPs on noised images.

    A Gaussian vector, split into its part in the subspace and the rest, gives one random unit vector of each kind. As
    E|J v|^2 = |J P|_F^2 / rank P for such a v, |J|_F^2 = r G_sem + (d - r) G_noise: a Hutchinson estimate that costs no
    further pass. Where num_probes >= d every direction of the space is taken once instead, and the result is exact.

    encode: (xt (B, ...), t (B,)) -> features (B, ...). basis: orthonormal (d, r), 0 < r < d.
    num_probes: random vectors per image and level; each costs two JVPs. feed: batch_size, device, prepare: see
    `noised_batches`; the encoder gets no labels.
    """
    size, rank = basis.shape
    if not 0 < rank < size or size != images[0].numel():
        raise ValueError(f"basis must be (d, r) with 0 < r < d = {images[0].numel()}, got {tuple(basis.shape)}")

    def gains(batch: NoisedBatch, level: float) -> Tensor:
        return _gains(encode, interpolant, batch, level, basis, seed, num_probes)

    def point(level: float, parts: Tensor) -> LevelJacobian:
        return _point(level, parts, rank, size)

    return Curve(along_levels(gains, point, images, levels, seed, **feed))


def _gains(
    encode: Encoder, interpolant: Interpolant, batch: NoisedBatch, level: float, basis: Tensor, seed: int, probes: int
) -> Tensor:
    """Mean of |J v|^2 over v in the subspace and in its complement, for each image: (2, B) float64."""
    xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
    basis = basis.to(xt)

    def gain(direction: Tensor) -> Tensor:
        change = directional_derivative(lambda x: encode(x, batch.t), xt, direction.expand(len(xt), -1).reshape_as(xt))
        return change.flatten(1).double().square().sum(dim=1)

    if len(basis) <= probes:
        frames = [basis, torch.linalg.qr(basis, mode="complete").Q[:, basis.shape[1] :]]
        return torch.stack([torch.stack([gain(v[None]) for v in frame.T]).mean(dim=0) for frame in frames])
    pairs = (_split(noise, basis) for noise in _vectors(batch, level, seed, probes))
    return torch.stack([torch.stack([gain(semantic), gain(rest)]) for semantic, rest in pairs]).mean(dim=0)


def _vectors(batch: NoisedBatch, level: float, seed: int, num: int) -> Iterator[Tensor]:
    return (further_noise(batch, level, seed, number).flatten(1) for number in range(1, num + 1))


def _split(vectors: Tensor, basis: Tensor) -> tuple[Tensor, Tensor]:
    """The unit vectors along the parts of `vectors` (B, d) in the subspace and orthogonal to it."""
    inside = vectors @ basis @ basis.T
    outside = vectors - inside
    return inside / inside.norm(dim=1, keepdim=True), outside / outside.norm(dim=1, keepdim=True)


def _point(level: float, gains: Tensor, rank: int, size: int) -> LevelJacobian:
    (g_sem, g_noise), count = gains.mean(dim=1).tolist(), gains.shape[1]
    errors = (gains.std(dim=1) / count**0.5).tolist() if count > 1 else [float("nan")] * 2
    energy = rank * g_sem + (size - rank) * g_noise
    ratio = g_sem / g_noise if g_noise else float("nan")
    share = rank * g_sem / energy if energy else float("nan")
    return LevelJacobian(level, g_sem, g_noise, errors[0], errors[1], ratio, energy**0.5, share)
