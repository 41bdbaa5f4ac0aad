"""Diffusion coefficients D(t) of the reverse SDE dx = (v - D score) dt + sqrt(2 D) dW.

Its marginals are those of the path for every D >= 0; what D decides is how errors of the network and of the steps wash
out. SiT's w_t and LCF's w (eq. 5) are 2 D. All forms are SiT's (transport/path.py), written on the noise level t; t
and D have any one shape.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.time import progress

Diffusion = Callable[[Interpolant, Tensor, float], Tensor]


def constant(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = n, shaped like t."""
    return torch.full_like(t, norm)


def sbdm(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = n sigma (alpha sigma' - alpha' sigma) / alpha: with n = 1 the forward diffusion, turned around.

    It is beta / 2 for SBDM-VP, and infinite at t = 1 on the paths that reach pure noise there (Linear, GVP).
    """
    return -norm * interpolant.velocity_from_score(torch.ones_like(t), torch.zeros_like(t), t)


def sigma(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = n sigma(t), shaped like t: the default of SiT's code; REPA's code takes n t on every path."""
    return norm * interpolant.sigma(t)


def linear(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = n t, shaped like t."""
    return norm * t


def decreasing(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = (n cos(pi progress) + 1)^2 / 4, shaped like t; for n = 1 it falls from 1 at noise to 0 at data."""
    return (norm * torch.cos(math.pi * progress(t)) + 1) ** 2 / 4


def increasing_decreasing(interpolant: Interpolant, t: Tensor, norm: float) -> Tensor:
    """D = n sin^2(pi t), shaped like t: 0 at both ends. A misspelt key hides it from the command line of SiT."""
    return norm * torch.sin(math.pi * t) ** 2


DIFFUSIONS: dict[str, Diffusion] = {
    form.__name__: form for form in (constant, sbdm, sigma, linear, decreasing, increasing_decreasing)
}
