"""Which rows make a batch, and the key of all that is drawn for them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, Self, TypeVar

import torch
from torch import Tensor

from flowexp.flow.randomness import keyed_generator

Batch = dict[str, Tensor]

_SUBSET = 0x5B5E  # keeps this stream apart from others with the same seed


@dataclass(frozen=True, eq=False)
class Pick:
    """One process's slice of a batch.

    What a set draws (a caption, a posterior sample) is a function of (seed, epoch, row) alone, and so the
    same whatever the batch size, the number of processes, and how often a run was resumed.

    Arguments:
        rows: which, int64 (B,).
        flips: which of them are mirrored, bool (B,); None is none.
        seed, epoch: the key.
    """

    rows: Tensor
    flips: Tensor | None = None
    seed: int = 0
    epoch: int = 0


class Images(Protocol):
    """What every set of images offers: those in memory (`ImageSet`), in files, with captions, or as latents.

    `labels` (N,) int64 are zeros where there are no classes. `prefetch` is how many batches to prepare ahead of their
    use, 0 where fetching is one gather. `fingerprint` is 16 hexadecimal digits that identify the images and their
    order, whatever folder they lie in, without decoding them; None where only their pixels do: see `identity_of`.
    """

    @property
    def labels(self) -> Tensor: ...

    @property
    def prefetch(self) -> int: ...

    @property
    def fingerprint(self) -> str | None: ...

    @property
    def device(self) -> torch.device:
        """Where its batches are."""

    @property
    def images(self) -> Tensor:
        """All of them as they are stored, (N, C, H, W): read now if they are not in memory, so take a subset first."""

    def __len__(self) -> int: ...

    def select(self, rows: Tensor) -> Self:
        """The images of the given rows (num,), in that order."""

    def subset(self, num: int) -> Self:
        """A fixed random subset, see `subset_rows`."""

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device."""

    def batch(self, pick: Pick) -> Batch:
        """`image` (B, C, H, W) and `label` of the rows picked."""


SomeImages = TypeVar("SomeImages", bound=Images)


def subset_rows(num: int, total: int) -> Tensor:
    """The first num rows, (num,), of one permutation of 0..total-1, the same in every run and on every machine.

    Nested (the subset of 100 lies in that of 200) and mixed over classes, unlike the first rows of a file.

    Raises:
        ValueError: num is not in 1..total.
    """
    if not 1 <= num <= total:
        raise ValueError(f"a subset must hold 1..{total} images, got {num}")
    return torch.randperm(total, generator=keyed_generator(_SUBSET, total))[:num]


def mirror(images: Tensor, flips: Tensor | None) -> Tensor:
    """Images (num, C, H, W), those marked in flips (num,) turned left to right."""
    if flips is None:
        return images
    # Picking whole rows is six times faster on a CPU than torch.where over bytes, and no device has to wait for it.
    rows = torch.arange(len(flips), device=flips.device) + len(flips) * flips
    return torch.cat((images, images.flip(-1))).index_select(0, rows)
