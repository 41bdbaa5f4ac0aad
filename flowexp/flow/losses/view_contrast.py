"""The contrast of two views of the same images (InfoNCE; MoCo v3, Chen et al. 2021, Algorithm 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.losses.precision import at_least_float32


def view_contrastive_error(queries: Tensor, keys: Tensor, tau: float = 0.2, first_row: int = 0) -> Tensor:
    """How hard it is to find each image's key among all keys: (B,), float32 or wider, never negative.

    -log softmax_j(cos(q_i, k_j) / tau) at j = first_row + i, for queries (B, Z) of one view and keys (N, Z) of the
    other, which are those of the same images from first_row on. Keys get no gradient. MoCo v3 multiplies by 2 tau; the
    weight of a term does that here.
    """
    with torch.autocast(queries.device.type, enabled=False):
        queries = F.normalize(at_least_float32(queries), dim=1)
        keys = F.normalize(at_least_float32(keys.detach()), dim=1)
        own = first_row + torch.arange(len(queries), device=queries.device)
        return F.cross_entropy(queries @ keys.T / tau, own, reduction="none")
