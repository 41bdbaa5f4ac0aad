"""The velocity field of a finite set of images, in closed form: the target of explicit flow matching (ExFM)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.losses.precision import at_least_float32


@torch.no_grad()
def explicit_velocity(
    xt: Tensor,
    t: Tensor,
    candidates: Tensor,
    interpolant: Interpolant,
    *,
    allowed: Tensor | None = None,
    t_min: float = 1.0e-3,
    chunk: int = 4096,
    spread: float = 0.0,
) -> Tensor:
    """E[velocity | xt] if the data are the candidates, all equally likely: (B, ...), float32 or wider.

    w_k = softmax_k(-||xt - alpha c_k||^2 / (2 sigma^2)), D = sum_k w_k c_k, and the velocity is that of data D at xt
    (Ryzhakov et al. 2024, eqs. 11 and 16; the comparison of LCF Fig. 11). For Linear it is (xt - D) / t with weights
    softmax_k(-||xt - (1 - t) c_k||^2 / (2 t^2)).

    xt: (B, ...). t: noise levels (B,). candidates: c (N, ...), of any dtype and on any device, the data that xt were
    made from among them: without them the field near clean data is that of other images.
    allowed: which candidates a row can come from, bool (B, N), at least one of each row; None is all. With those of the
        row's class it is the velocity given the class.
    t_min: smaller t are taken for it, in the weights and in the velocity; at t = 0 there is none.
    chunk: candidates looked at together; memory is B x chunk and chunk images.
    spread: standard deviation of Gaussian noise about each candidate, by which the data are a mixture; 0 is none. Then
        sigma^2 in the weights is sigma^2 + (alpha spread)^2, and what a pair leaves of xt is shared in that proportion.

    In many dimensions the softmax has one entry at small t, and the velocity is that of flow matching.
    """
    if len(candidates) == 0 or candidates.shape[1:] != xt.shape[1:]:
        raise ValueError(f"candidates must be images of shape {tuple(xt.shape[1:])}, got {tuple(candidates.shape)}")
    xt = at_least_float32(xt)
    t = t.to(xt.dtype).clamp(min=t_min)
    with torch.autocast(xt.device.type, enabled=False):
        alpha, sigma = interpolant.alpha(t)[:, None], interpolant.sigma(t)[:, None]
        width = sigma if spread == 0 else (sigma.square() + (alpha * spread).square()).sqrt()
        flat = xt.flatten(1)
        data = _posterior_mean(flat, alpha, width, candidates.flatten(1), allowed, chunk)
        if spread != 0:
            data = data + alpha * spread**2 / width.square() * (flat - alpha * data)
        return interpolant.velocity_from_data(data.view_as(xt), xt, t)


@dataclass(frozen=True, eq=False)
class ExactField:
    """The velocity of data in closed form, in place of a network of (xt, t, label): what the best network would give.

    Its length falls short of the pairs' as Jensen's inequality has it (VD eq. 3), and of no other reason.

    Arguments:
        images: the data (N, ...), all equally likely.
        interpolant: the path.
        labels: classes (N,) of the images, for the velocity given a sample's class; None is given none.
        spread: standard deviation of the data about each image, see `explicit_velocity`.
    """

    images: Tensor
    interpolant: Interpolant
    labels: Tensor | None = None
    spread: float = 0.0

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None, /) -> Tensor:
        allowed = None if self.labels is None or label is None else label[:, None] == self.labels[None]
        return explicit_velocity(x, t, self.images, self.interpolant, allowed=allowed, spread=self.spread)

    def null_condition(self, label: Tensor | None) -> None:
        """None: there is no class that stands for all of them."""
        return None

    def to(self, device: torch.device | str) -> ExactField:
        """The same field on a device."""
        labels = None if self.labels is None else self.labels.to(device)
        return ExactField(self.images.to(device), self.interpolant, labels, self.spread)


def _posterior_mean(
    xt: Tensor, alpha: Tensor, sigma: Tensor, candidates: Tensor, allowed: Tensor | None, chunk: int
) -> Tensor:
    """sum_k w_k c_k, (B, F), with a softmax that is updated chunk by chunk; alpha and sigma are (B, 1).

    Everything is moved to the centre of some candidates first: weights do not change, rounding becomes smaller.
    """
    centre = candidates[:chunk].to(xt).mean(dim=0)
    near = xt - alpha * centre
    largest = xt.new_full((len(xt), 1), torch.finfo(xt.dtype).min)  # finite, for rows that a chunk has nothing for
    total, mean = torch.zeros_like(largest), torch.zeros_like(xt)
    for start in range(0, len(candidates), chunk):
        part = candidates[start : start + chunk].to(xt) - centre
        logits = _logits(near, alpha, sigma, part)
        if allowed is not None:
            logits = logits.masked_fill(~allowed[:, start : start + chunk], -torch.inf)
        before, largest = largest, torch.maximum(largest, logits.amax(dim=1, keepdim=True))
        weights, kept = _exp(logits - largest), (before - largest).exp()
        total = kept * total + weights.sum(dim=1, keepdim=True)
        mean = kept * mean + weights @ part
    return mean / total + centre


def _exp(logits: Tensor) -> Tensor:
    """exp, with 0 for what would be subnormal: a CPU multiplies subnormal numbers about ten times as slowly."""
    return F.threshold(logits, math.log(torch.finfo(logits.dtype).tiny), -torch.inf).exp()


def _logits(xt: Tensor, alpha: Tensor, sigma: Tensor, candidates: Tensor) -> Tensor:
    """-||xt - alpha c_k||^2 / (2 sigma^2) but for ||xt||^2, which all k share: (B, N)."""
    half_squares = candidates.square().sum(dim=1) / 2
    return alpha * (xt @ candidates.T - alpha * half_squares) / sigma.square()
