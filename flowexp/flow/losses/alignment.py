"""The alignment of a network's tokens with those of a teacher (REPA, Yu et al. 2024), and its weight over t."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.losses.precision import at_least_float32

AlignmentWeight = Literal["constant", "hard", "sigmoid", "snr"]
ALIGNMENT_WEIGHTS: tuple[AlignmentWeight, ...] = get_args(AlignmentWeight)


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


def smooth_alignment_error(tokens: Tensor, teacher: Tensor, beta: float) -> Tensor:
    """The smooth L1 distance of tokens (B, N, D) and a teacher's, averaged over their elements: (B,), float32 or wider.

    With d the difference it is d^2 / (2 beta) below beta and |d| - beta / 2 above (SRA, Jiang et al. 2025). The teacher
    gets no gradient.
    """
    with torch.autocast(tokens.device.type, enabled=False):
        ours, theirs = at_least_float32(tokens), at_least_float32(teacher.detach())
        return F.smooth_l1_loss(ours, theirs, reduction="none", beta=beta).flatten(1).mean(dim=1)


def alignment_weight(
    form: AlignmentWeight, t: Tensor, interpolant: Interpolant, tau: float = 0.7, sharpness: float = 20.0
) -> Tensor:
    """How much rows at noise levels t (B,) count in an alignment, in [0, 1] (VA-REPA, Yang et al. 2026, 2602.05435).

    "constant": 1, REPA's. "hard": 1 below tau, 0 from there on. "sigmoid": 1 / (1 + exp(-sharpness (tau - t))).
    "snr": SNR(t) / (SNR(t) + SNR(tau)), SNR = alpha^2 / sigma^2 of the path. The smooth ones are 1/2 at tau.
    """
    check_choice("terms.repa.weight", form, ALIGNMENT_WEIGHTS)
    if form == "constant":
        return torch.ones_like(t)
    if form == "hard":
        return (t < tau).to(t.dtype)
    if form == "sigmoid":
        return torch.sigmoid(sharpness * (tau - t))
    level = torch.full_like(t, tau)
    signal = (interpolant.alpha(t) * interpolant.sigma(level)) ** 2  # SNR(t) over SNR(tau), without a division by 0
    noise = (interpolant.sigma(t) * interpolant.alpha(level)) ** 2
    return signal / (signal + noise)


def weighted_mean(error: Tensor, weight: Tensor) -> Tensor:
    """sum(weight error) / sum(weight) over rows (B,): a scalar, 0 where no row counts."""
    return (weight * error).sum() / weight.sum().clamp(min=1e-8)
