"""Directional derivatives of networks, in forward mode: the cost of one forward pass, and no graph."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel


def directional_derivative(function: Callable[[Tensor], Tensor], x: Tensor, direction: Tensor) -> Tensor:
    """J(x) direction, the Jacobian of `function` at x (B, ...) times `direction` (B, ...); shaped like function(x)."""
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward-mode derivative
        return torch.func.jvp(function, (x,), (direction.to(x),))[1]
