"""The Dispersive Loss (Wang and He 2025, arXiv 2506.09027): contrast without positives, one number for a batch."""

from __future__ import annotations

import math
from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.distances import squared_distances
from flowexp.flow.losses.contrastive import feature_vectors

Form = Literal["infonce_l2", "hinge", "covariance"]
FORMS: tuple[Form, ...] = get_args(Form)


def dispersive_error(tokens: Tensor, tau: float = 0.5, form: Form = "infonce_l2", margin: float = 1.0) -> Tensor:
    """How close together the features of a batch lie: a scalar, float32 or wider.

    With z_i the flattened tokens of row i, F their number of elements and d_ij = ||z_i - z_j||^2 / F:
    "infonce_l2": log mean_ij exp(-d_ij / tau) (the paper's Algorithm 1);
    "hinge": mean_ij max(0, margin - d_ij)^2;
    "covariance": mean of C_mn^2 over m != n, with C the (F, F) correlation matrix of the batch, as in Barlow Twins.

    tokens: features (B, N, D), all with gradient. tau: temperature of "infonce_l2". margin: of "hinge".

    Means over i and j take all B^2 pairs, i = j included, as the authors' code does: d_ii = 0 bounds the first from
    below by -log B. The paper prints d without F and "covariance" as a sum; without the divisions both grow with the
    size of the network.
    Fewer than two rows have nothing to disperse: 0, still part of the graph.
    """
    check_choice("form", form, FORMS)
    with torch.autocast(tokens.device.type, enabled=False):
        z = feature_vectors(tokens)
        if len(z) < 2:
            return 0.0 * z.sum()
        if form == "covariance":
            return _correlation_error(z)
        distances = _distances(z)
        if form == "hinge":
            return (margin - distances).clamp(min=0).square().mean()
        return torch.logsumexp(-distances.flatten() / tau, dim=0) - math.log(distances.numel())


def _distances(z: Tensor) -> Tensor:
    """Squared distances of all pairs of rows, per element, (B, B)."""
    own = torch.eye(len(z), dtype=torch.bool, device=z.device)
    # 0 is written in, not computed: no rounding, no gradient
    return squared_distances(z, z).masked_fill(own, 0.0) / z.shape[1]


def _correlation_error(z: Tensor) -> Tensor:
    """Mean squared correlation of two different features.

    ||Z^T Z||^2 = ||Z Z^T||^2: the sum over F^2 correlations is read from a (B, B) matrix, and F is large.
    """
    centred = z - z.mean(dim=0)
    columns = centred / torch.linalg.vector_norm(centred, dim=0).clamp(min=1e-6)
    squares = (columns @ columns.T).square().sum()
    own = columns.square().sum(dim=0).square().sum()  # C_mm^2, which is 1 unless feature m is constant
    num_features = z.shape[1]
    return (squares - own) / max(1, num_features * (num_features - 1))
