"""Improved precision and recall (Kynkaanniemi et al., 2019, eqs. 1 to 3), with the choices of ADM's evaluator."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from flowexp.measuring.metrics.neighbours import Device, blocks, check_pair, middle_of, rounding_of, smallest


class PrecisionRecall(NamedTuple):
    """precision: share of samples inside the reference's manifold. recall: share of reference images inside theirs."""

    precision: float
    recall: float


def squared_radii(features: Tensor, k: int = 3, device: Device = "cpu", middle: Tensor | None = None) -> Tensor:
    """Squared distances (N,) of features (N, D) to their k-th nearest neighbour: the (k + 1)-th smallest with itself.

    middle: see `blocks`.

    Raises:
        ValueError: N is not above k.
    """
    if len(features) <= k:
        raise ValueError(
            f"precision and recall with k = {k} need more than {k} images in each set, got {len(features)}"
        )
    return smallest(features, features, k + 1, device, middle)[0][:, k]


def precision_recall(samples: Tensor, reference: Tensor, k: int = 3, device: Device = "cpu") -> PrecisionRecall:
    """Precision and recall of `samples` (N, D) against `reference` (M, D), stored features.

    A manifold is the union of balls about each image that reach to its k-th neighbour, the rim included, and as much
    beyond it as one distance is rounded in two ways: exact ties are inside, as in ADM's evaluator and unlike prdc's.
    Distances are in fp32; ADM's are in fp16 where those are finite, which moves the shares in the third digit.

    Raises:
        ValueError: other shapes, or a set of at most k.
    """
    check_pair(samples, reference)
    middle = middle_of(reference, device)
    of_samples, of_reference = rounding_of(samples, middle), rounding_of(reference, middle)
    radii_samples = squared_radii(samples, k, device, middle) + of_samples
    radii_reference = squared_radii(reference, k, device, middle) + of_reference
    sample_inside = torch.zeros(len(samples), dtype=torch.bool, device=device)
    reference_inside = torch.zeros(len(reference), dtype=torch.bool, device=device)
    for rows, columns, distances in blocks(samples, reference, device, middle):
        sample_inside[rows] |= (distances <= radii_reference[columns] + of_samples[rows, None]).any(1)
        reference_inside[columns] |= (distances <= radii_samples[rows, None] + of_reference[columns]).any(0)
    return PrecisionRecall(float(sample_inside.double().mean()), float(reference_inside.double().mean()))
