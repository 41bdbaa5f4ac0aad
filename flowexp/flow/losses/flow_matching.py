"""The regression of a velocity (LCF Algorithm 1 line 6; SiT, REPA)."""

from __future__ import annotations

from torch import Tensor

from flowexp.flow.losses.precision import at_least_float32


def velocity_error(v: Tensor, target: Tensor) -> Tensor:
    """Squared distance of two velocities (B, ...), averaged over their elements: (B,), float32 or wider.

    LCF eq. 12 and Algorithm 1 line 6 print a sum over elements. The mean is taken instead, as flow-matching code does:
    only then are this term and the contrastive one of like size, as in the settings of LCF section 5.
    """
    difference = at_least_float32(v) - at_least_float32(target)
    return difference.square().flatten(1).mean(dim=1)
