"""The type errors are computed in."""

from __future__ import annotations

import torch
from torch import Tensor


def at_least_float32(x: Tensor) -> Tensor:
    """x, of any shape, in float32; wider types stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
