"""How far samples lie from the training set (The Velocity Deficit, Table 11, at t = 1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flowexp.measuring.metrics.neighbours import Device, check_pair, smallest


class Nearest(NamedTuple):
    """distances: (N,) Euclidean, not squared. places: (N,) which reference image is nearest."""

    distances: Tensor
    places: Tensor


def nearest_neighbours(samples: Tensor, reference: Tensor, device: Device = "cpu") -> Nearest:
    """The nearest of `reference` (M, D) to each of `samples` (N, D), stored features; the metric is the mean distance.

    Matrix products decide which is nearest; the distance is then taken from the difference, so that a copy of a
    training image lies at exactly 0.

    Raises:
        ValueError: other shapes, or no reference.
    """
    check_pair(samples, reference)
    places = smallest(samples, reference, 1, device)[1][:, 0].cpu()
    distances = [
        torch.linalg.vector_norm(own.double() - reference[place].double(), dim=1)
        for own, place in zip(samples.split(4096), places.split(4096), strict=True)
    ]
    return Nearest(torch.cat(distances), places)
