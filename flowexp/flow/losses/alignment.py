"""The alignment of a network's tokens with those of a teacher (REPA, Yu et al. 2024)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.losses.precision import at_least_float32


def alignment_error(tokens: Tensor, teacher: Tensor) -> Tensor:
    """Minus the cosine of projected tokens (B, N, Z) and a teacher's, averaged over the tokens: (B,), in [-1, 1].

    REPA eq. 8, with the cosine that its code takes as similarity. Both sides are scaled to length 1 per token in
    float32 or wider: in half precision that gave NaN in long runs. The teacher gets no gradient.
    """
    if tokens.shape != teacher.shape:
        raise ValueError(
            f"tokens and teacher must have one shape, got {tuple(tokens.shape)} and {tuple(teacher.shape)}"
        )
    with torch.autocast(tokens.device.type, enabled=False):
        ours = F.normalize(at_least_float32(tokens), dim=-1)
        theirs = F.normalize(at_least_float32(teacher.detach()), dim=-1)
        return -(ours * theirs).sum(dim=-1).mean(dim=1)
