"""The magnitude term of MAFM (Velocity Deficit eq. 9, reconstructed)."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.losses.precision import at_least_float32

Form = Literal["rms_squared", "l1", "one_sided", "squared_norms"]
FORMS: tuple[Form, ...] = get_args(Form)


def magnitude_error(v: Tensor, target: Tensor, form: Form = "rms_squared") -> Tensor:
    """How far the length of a velocity (B, ...) is from its target's: (B,), float32 or wider.

    With r = ||v|| / sqrt(d), r* = ||target|| / sqrt(d), the root mean squares over the d elements of a sample:
    "rms_squared" (r - r*)^2; "l1" |r - r*|; "one_sided" (r* - r)^2 where r < r*, else 0;
    "squared_norms" (r^2 - r*^2)^2.
    The target gets no gradient; at v = 0, where r has none, v's is zero too.

    Velocity Deficit eq. 9 is missing from the paper's text; what is left calls it an explicit supervision of the
    magnitude. "rms_squared" is the reading taken: added to `velocity_error` with weight lam w it is exactly
    (||v - v*||^2 + lam w (||v|| - ||v*||)^2) / d. Its minimiser given xt is no longer the mean velocity but a longer
    vector of the same direction.
    """
    check_choice("form", form, FORMS)
    length, target_length = rms(v), rms(target.detach())
    if form == "squared_norms":
        return (length.square() - target_length.square()).square()
    gap = target_length - length
    if form == "l1":
        return gap.abs()
    return (gap.clamp(min=0) if form == "one_sided" else gap).square()


def rms(v: Tensor) -> Tensor:
    """Root mean square of each sample (B, ...) over its elements: (B,)."""
    flat = at_least_float32(v).flatten(1)
    # vector_norm has the gradient 0 at the zero vector, where sqrt(mean of squares) has none; networks start there
    return torch.linalg.vector_norm(flat, dim=1) / flat.shape[1] ** 0.5
