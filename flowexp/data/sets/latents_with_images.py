"""Latents together with the pictures that they were made of, for teachers that see pixels (REPA)."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.data.errors import DataError
from flowexp.data.sets.batch_rows import Batch, Images, Pick, subset_rows


@dataclass(frozen=True, eq=False)
class PicturedSet:
    """Two sets of the same images in the same order, see `Images`; a batch has both, mirrored alike.

    Arguments:
        latents: what the network is trained on.
        pictures: the same images as pictures.

    Raises:
        DataError: they differ in number.
    """

    latents: Images
    pictures: Images

    prefetch: ClassVar[int] = 2

    def __post_init__(self) -> None:
        if len(self.latents) != len(self.pictures):
            raise DataError(
                f"the cache has {len(self.latents)} latents, its pictures are {len(self.pictures)}: give data.pictures "
                "the dataset that was encoded, whole"
            )

    def __len__(self) -> int:
        return len(self.latents)

    @property
    def labels(self) -> Tensor:
        """int64 (N,)."""
        return self.latents.labels

    @property
    def fingerprint(self) -> str | None:
        """That of the latents."""
        return self.latents.fingerprint

    @property
    def images(self) -> Tensor:
        """The latents (N, C, H, W), which diagnostics measure on."""
        return self.latents.images

    @property
    def device(self) -> torch.device:
        """Where the latents are."""
        return self.latents.device

    def select(self, rows: Tensor) -> PicturedSet:
        """The images of the given rows (num,)."""
        return replace(self, latents=self.latents.select(rows), pictures=self.pictures.select(rows))

    def subset(self, num: int) -> PicturedSet:
        """A fixed random subset, see `subset_rows`."""
        return self.select(subset_rows(num, len(self)))

    def to(self, device: torch.device | str) -> PicturedSet:
        """Refused, as for latents alone."""
        return replace(self, latents=self.latents.to(device))

    def batch(self, pick: Pick) -> Batch:
        """The batch of the latents, and `pixels` uint8 (B, 3, H, W)."""
        return {**self.latents.batch(pick), "pixels": self.pictures.batch(pick)["image"]}
