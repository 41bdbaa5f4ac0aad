"""Images with several captions each, of which every epoch takes one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Generic, Self

import torch
from torch import Tensor

from flowexp.data.sets.batch_rows import Batch, Pick, SomeImages, subset_rows
from flowexp.flow.randomness import keyed_generator

_CAPTION, _ORDER = 0xCA97, 0x0CA9  # keep these streams apart from others with the same seed
IN_EVALUATION_ORDER = "held out, in one fixed random order"


@dataclass(frozen=True, eq=False)
class CaptionNumbers:
    """Which captions belong to which image, the captions of a split being numbered through.

    Arguments:
        starts: the first caption of each image, int64 (N,).
        counts: how many it has, at least one, int64 (N,).
    """

    starts: Tensor
    counts: Tensor

    @classmethod
    def of(cls, counts: Sequence[int] | Tensor) -> CaptionNumbers:
        """Captions that lie image after image."""
        counts = torch.as_tensor(counts, dtype=torch.int64)
        return cls(counts.cumsum(0) - counts, counts)

    def select(self, rows: Tensor) -> CaptionNumbers:
        """Those of the images of the given rows."""
        rows = rows.cpu()
        return CaptionNumbers(self.starts[rows], self.counts[rows])

    def draw(self, pick: Pick) -> Tensor:
        """The number of a caption for each image, int64 (B,), uniform among its captions by (seed, epoch, row)."""
        return _drawn(self, pick.seed, pick.epoch, pick.rows.device)[pick.rows]


@lru_cache(maxsize=2)  # one epoch's serve all its batches; picked on a CPU, they would wait for the device at each
def _drawn(numbers: CaptionNumbers, seed: int, epoch: int, device: torch.device) -> Tensor:
    """A caption of every image, int64 (N,)."""
    uniform = torch.rand(len(numbers.counts), generator=keyed_generator(seed, _CAPTION, epoch), dtype=torch.float64)
    return (numbers.starts + (uniform * numbers.counts).long()).to(device)


@dataclass(frozen=True, eq=False)
class CaptionedSet(Generic[SomeImages]):
    """A set of images, see `Images`, whose batches have the number of a caption as `label`.

    Arguments:
        pictures: the images.
        captions: the numbers of their captions.
    """

    pictures: SomeImages
    captions: CaptionNumbers

    def __len__(self) -> int:
        return len(self.pictures)

    @property
    def labels(self) -> Tensor:
        """int64 (N,): the classes, zeros where there are none."""
        return self.pictures.labels

    @property
    def prefetch(self) -> int:
        return self.pictures.prefetch

    @property
    def fingerprint(self) -> str | None:
        return self.pictures.fingerprint

    @property
    def device(self) -> torch.device:
        return self.pictures.device

    @property
    def images(self) -> Tensor:
        return self.pictures.images

    def select(self, rows: Tensor) -> Self:
        """The images of the given rows (num,), with their captions."""
        return replace(self, pictures=self.pictures.select(rows), captions=self.captions.select(rows))

    def subset(self, num: int) -> Self:
        """A fixed random subset, see `subset_rows`."""
        return self.select(subset_rows(num, len(self)))

    def to(self, device: torch.device | str) -> Self:
        """The same images on a device; the numbers of captions stay."""
        return replace(self, pictures=self.pictures.to(device))

    def batch(self, pick: Pick) -> Batch:
        """`image` (B, C, H, W) as stored, and `label` int64 (B,), the number of a caption of each."""
        return {**self.pictures.batch(pick), "label": self.captions.draw(pick)}


def evaluation_order(num_captions: int) -> Tensor:
    """The order in which samples take held-out captions, a permutation (num_captions,), the same in every run."""
    return torch.randperm(num_captions, generator=keyed_generator(_ORDER, num_captions))
