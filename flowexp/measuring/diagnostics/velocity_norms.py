"""The velocity deficit: a network's velocity beside its target, in length and direction (VD Figs. 1 and 2)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Unpack

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.losses import ExactField
from flowexp.flow.velocity import Network
from flowexp.measuring.diagnostics.curve import Curve, LevelPoint
from flowexp.measuring.diagnostics.noised import Feed, NoisedBatch, along_levels
from flowexp.measuring.diagnostics.target import target_velocity


@dataclass(frozen=True)
class LevelNorms(LevelPoint):
    """Lengths at one noise level; a norm is the mean of |.| / sqrt(d) over images of d values.

    velocity, target: of v and v*, which is the velocity of the pair as far as the network can reach it, see
        `target_velocity`. noise, data: of sigma' noise and alpha' data, the two parts of v*; on the linear path these
        are the noise norm and the data norm between which |v| falls in VD Fig. 1 (a).
    ratio: the mean of |v| / |v*|. deficit: 1 - ratio. energy_ratio: E|v|^2 / E|v*|^2 (VD eq. 3).
    cosine: the mean cosine of v and v*.
    best_scale: E<v, v*> / E|v|^2, the factor on v with the least velocity error. It is 1 for the optimal field, whose
        deficit is all variance of v* given xt; only what exceeds 1 is a network that underestimates. best_scale_se: its
        standard error over images, large where v vanishes. ratio_se: that of ratio, NaN of a single image.
    velocity_sd, target_sd: standard deviations of the lengths over images, VD Fig. 2's statistics; NaN of a single one.
    """

    velocity: float
    target: float
    noise: float
    data: float
    ratio: float
    deficit: float
    energy_ratio: float
    cosine: float
    best_scale: float
    best_scale_se: float
    ratio_se: float = 0.0
    velocity_sd: float = 0.0
    target_sd: float = 0.0


@dataclass(frozen=True)
class LevelNormsBesideExact(LevelNorms):
    """The same with the exact field of the data at the same states: what is Jensen's, and what the network's.

    exact, exact_sd: length of the exact velocity, and its standard deviation over images. exact_ratio: the mean of its
        ratio to |v*|. from_exact: root mean square of v less the exact velocity.
    mean_image: of alpha' times the mean image; on the linear path at the noise end the exact length is
        sqrt(1 + mean_image^2), and 1 only for data of mean zero, as VD assumes.
    centred, centred_target, centred_exact: the lengths if the mean image were subtracted from all data, which moves
        every velocity of a path by the same vector.
    """

    exact: float = 0.0
    exact_sd: float = 0.0
    exact_ratio: float = 0.0
    from_exact: float = 0.0
    mean_image: float = 0.0
    centred: float = 0.0
    centred_target: float = 0.0
    centred_exact: float = 0.0


@torch.no_grad()
def velocity_norms(
    network: Network,
    interpolant: Interpolant,
    images: Tensor,
    levels: Iterable[float],
    seed: int,
    exact: ExactField | None = None,
    **feed: Unpack[Feed],
) -> Curve[LevelNorms]:
    """`LevelNorms` of a network, (xt, t, label) -> velocity, on `images` (N, C, H, W) at each level.

    exact: the field of the data, in the network's space and on its device; with it the points are
    `LevelNormsBesideExact`. The images must be among its own: near clean data it is that of the nearest.
    feed: labels, batch_size, device, prepare: see `noised_batches`.
    """

    mean = None if exact is None else exact.images.mean(dim=0)

    def products(batch: NoisedBatch, level: float) -> Tensor:
        return _products(network, interpolant, batch, exact, mean)

    return Curve(along_levels(products, level_norms, images, levels, seed, **feed))


def _products(
    network: Network, interpolant: Interpolant, batch: NoisedBatch, exact: ExactField | None, mean: Tensor | None
) -> Tensor:
    """`products_of` each image, (5, B).

    With the exact field e and the mean image m = -alpha' mean follow the squares of e, v - e, m, v - m, v* - m and
    e - m: (11, B).
    """
    nothing = torch.zeros_like(batch.data)
    xt = interpolant.interpolate(batch.data, batch.noise, batch.t)
    velocity = network(xt, batch.t, batch.label)
    noise = target_velocity(network, interpolant, nothing, batch.noise, batch.t)
    data = target_velocity(network, interpolant, batch.data, nothing, batch.t)
    products = products_of(velocity, noise, data)
    if exact is None or mean is None:
        return products
    centre = target_velocity(network, interpolant, mean.expand_as(batch.data), nothing, batch.t)
    known = exact(xt, batch.t, batch.label)
    v, n, d, e, m = (part.flatten(1).double() for part in (velocity, noise, data, known, centre))
    further = (e, v - e, m, v - m, n + d - m, e - m)
    return torch.cat([products, torch.stack([vector.square().mean(dim=1) for vector in further])])


def products_of(velocity: Tensor, noise: Tensor, data: Tensor) -> Tensor:
    """Per image the mean over values of v v, v* v*, v v*, and of the squares of v*'s two parts: (5, B) float64.

    velocity: v, (B, ...). noise, data: the two parts of v*, sigma' noise and alpha' data, shaped like v.
    """
    velocity, noise, data = (part.flatten(1).double() for part in (velocity, noise, data))
    target = noise + data
    pairs = ((velocity, velocity), (target, target), (velocity, target), (noise, noise), (data, data))
    return torch.stack([(first * second).mean(dim=1) for first, second in pairs])


def level_norms(level: float, products: Tensor) -> LevelNorms:
    """The lengths at one level from the `products_of` all images, (5, N), or with the exact field (11, N)."""
    vv, tt, vt, noise, data = products[:5]
    ratios = (vv / tt).sqrt()
    ratio, ratio_se = ratios.mean(), ratios.std() / len(ratios) ** 0.5
    means = [part.sqrt().mean() for part in (vv, tt, noise, data)]
    cosine = (vt / (vv * tt).sqrt()).mean()
    best = vt.mean() / vv.mean()
    best_se = (vt - best * vv).square().mean().sqrt() / (vv.mean() * len(vv) ** 0.5)  # delta method of a ratio
    best_se = best_se if len(vv) > 1 else torch.full_like(best_se, torch.nan)  # no scatter to read
    spreads = [part.sqrt().std() for part in (vv, tt)]
    found = torch.stack([*means, ratio, 1.0 - ratio, vv.mean() / tt.mean(), cosine, best, best_se, ratio_se, *spreads])
    point = LevelNorms(level, *found.tolist())
    return point if len(products) == 5 else _beside_exact(point, tt, products[5:])


def _beside_exact(point: LevelNorms, tt: Tensor, squares: Tensor) -> LevelNormsBesideExact:
    """squares: of the exact velocity, v less it, the mean image, and v, v* and the exact velocity less that one."""
    exact, apart, mean_image, *centred = squares
    lengths = [exact.sqrt().mean(), exact.sqrt().std(), (exact / tt).sqrt().mean(), apart.mean().sqrt()]
    lengths += [part.sqrt().mean() for part in (mean_image, *centred)]
    return LevelNormsBesideExact(**asdict(point), **dict(zip(_BESIDE, torch.stack(lengths).tolist(), strict=True)))


_BESIDE = ("exact", "exact_sd", "exact_ratio", "from_exact", "mean_image", "centred", "centred_target", "centred_exact")
