"""Distances between rows, by one matrix product."""

from __future__ import annotations

from torch import Tensor


def squared_distances(a: Tensor, b: Tensor, centre: Tensor | None = None) -> Tensor:
    """Squared Euclidean distances (K, B) between rows a (K, F) and rows b (B, F): |a|^2 + |b|^2 - 2 a.b, at least 0.

    Both are moved to `centre` (F,) first, that of b unless one is given. Distances do not change, but what rows have in
    common (the positional embedding of features above all) no longer swamps the digits in which they differ.
    """
    centre = b.detach().mean(dim=0) if centre is None else centre
    a, b = a - centre, b - centre
    squares = a.square().sum(dim=1)[:, None] + b.square().sum(dim=1)
    return squares.addmm_(a, b.T, alpha=-2).clamp_min_(0)  # in place: a block of the metrics' is 134 MB
