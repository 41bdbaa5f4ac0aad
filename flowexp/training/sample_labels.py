"""What samples are conditioned on: classes in turns, drawn or given; or captions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.training.step_draws import random_class

Captions = Callable[[Sequence[int], torch.device], Tensor | None]
Labels = Literal["balanced", "random"]
LABELS: tuple[Labels, ...] = get_args(Labels)


def classes_for(
    indices: Sequence[int], num_classes: int | None, seed: int, label: int | None, labels: str
) -> list[int] | None:
    """The classes of the samples numbered `indices`; None for an unconditional network, whose num_classes is None.

    label: a class for all. labels: without one, "balanced" gives sample i the class i mod num_classes, "random" a class
    drawn for it.
    """
    check_choice("labels", labels, LABELS)
    if num_classes is None:
        if label is not None:
            raise ValueError(f"label={label} needs a class-conditional network, and this one is unconditional")
        return None
    if label is not None:
        if not 0 <= label < num_classes:
            raise ValueError(f"label must lie in 0..{num_classes - 1}, got {label}")
        return [label] * len(indices)
    return [random_class(seed, i, num_classes) if labels == "random" else i % num_classes for i in indices]


def text_for(
    indices: Sequence[int], captions: Captions | None, device: torch.device, label: int | None = None
) -> Tensor:
    """The embedded captions (B, L, D) of the samples `indices`. Raises ValueError for a class, or without captions."""
    if label is not None:
        raise ValueError(f"label={label} needs a class-conditional network, and this one takes text")
    found = None if captions is None else captions(indices, device)
    if found is None:
        raise ValueError(
            "a network that takes text needs captions: choose a dataset that has some, "
            "such as data=fashion_mnist_captions"
        )
    return found
