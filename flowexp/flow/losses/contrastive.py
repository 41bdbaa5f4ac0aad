"""The local contrastive error of LCF (eq. 14; Algorithm 1 line 7)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.distances import squared_distances
from flowexp.flow.losses.precision import at_least_float32

Denominator = Literal["alg1", "eq14", "infonce"]
DENOMINATORS: tuple[Denominator, ...] = get_args(Denominator)
DistanceScale = Literal["mean", "sum"]
DISTANCE_SCALES: tuple[DistanceScale, ...] = get_args(DistanceScale)
Pooling = Literal["flatten", "mean"]
POOLINGS: tuple[Pooling, ...] = get_args(Pooling)


def feature_vectors(features: Tensor, pooling: Pooling = "flatten", normalize: bool = False) -> Tensor:
    """One vector per sample (B, F), float32 or wider, from tokens (B, N, D).

    pooling "flatten" keeps every token (F = N D), "mean" averages them (F = D). normalize scales each vector to length
    1; its distances are then of order 1 as they are, so distance_scale="sum" belongs to it.
    """
    check_choice("pooling", pooling, POOLINGS)
    features = at_least_float32(features)
    vectors = features.flatten(1) if pooling == "flatten" else features.mean(dim=1)
    return F.normalize(vectors, dim=1) if normalize else vectors


def local_contrastive_error(
    anchors: Tensor,
    positives: Tensor,
    contrasts: Tensor,
    own: Tensor,
    *,
    tau: float = 0.5,
    denominator: Denominator = "alg1",
    distance_scale: DistanceScale = "mean",
) -> Tensor:
    """How much farther each anchor is from its positive than from the batch: (K,), float32 or wider.

    d(z_i, a_i) / tau + log sum_j exp(-d(z_i, z_j) / tau), with d the squared distance.

    anchors: features z_i (K, F) of the low-noise samples, the only input that gets a gradient.
    positives: features a_i (K, F) of the same samples at T_min.
    contrasts: features z_j (B, F) of the whole batch, each at its own t.
    own: (K,), the row of each anchor among the contrasts.
    denominator: LCF contradicts itself about the sum over j. "alg1" (Algorithm 1 line 7) takes all rows, the anchor's
    that of the anchor included, so that the error is never negative; "eq14" leaves it out and is unbounded below;
    "infonce" leaves it out and adds the positive.
    distance_scale: "mean" divides squared distances by F, without which tau = 0.5 saturates the exponentials of
    98304 features; "sum" does not.

    K = 0 gives an empty tensor that is still part of the graph.
    """
    check_choice("denominator", denominator, DENOMINATORS)
    check_choice("distance_scale", distance_scale, DISTANCE_SCALES)
    if denominator != "alg1" and len(contrasts) < 2:
        raise ValueError(f"denominator={denominator!r} needs at least 2 samples in a batch, got {len(contrasts)}")
    with torch.autocast(anchors.device.type, enabled=False):
        anchors, positives, contrasts = map(at_least_float32, (anchors, positives.detach(), contrasts.detach()))
        unit = tau * (anchors.shape[1] if distance_scale == "mean" else 1)
        near = (anchors - positives).square().sum(dim=1) / unit
        far = squared_distances(anchors, contrasts) / unit
        return near + _log_denominator(near, far, own, denominator)


def _log_denominator(near: Tensor, far: Tensor, own: Tensor, denominator: Denominator) -> Tensor:
    """log of the sum over exp(-distance); the denominator decides whether the row of the anchor counts."""
    # the distance of the anchor from itself is 0 by definition: written in, without rounding and without gradient
    own_value = 0.0 if denominator == "alg1" else float("inf")
    far = far.scatter(1, own[:, None], own_value)
    if denominator == "infonce":
        far = torch.cat([far, near[:, None]], dim=1)
    return torch.logsumexp(-far, dim=1)
