"""Images as they are stored (uint8) and as networks see them (float in [-1, 1])."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.data.sets.batch_rows import Batch, Images, Pick, mirror, subset_rows


def to_float(images: Tensor) -> Tensor:
    """Stored images as the data of the flow: uint8 (...) to float32 in [-1, 1], 0 to -1 and 255 to 1.

    Raises:
        ValueError: they are floats, whose range could only be guessed.
    """
    if images.is_floating_point():
        raise ValueError(f"to_float needs stored pictures, uint8, got {images.dtype}: latents are data as they are")
    return images.to(torch.float32).div_(127.5).sub_(1.0)


def to_uint8(images: Tensor) -> Tensor:
    """Samples as pictures: float (...) to uint8, 127.5 x + 128 clamped to 0..255 and truncated, as SiT's sample_ddp.py.

    Inverts `to_float` exactly; every one of the 256 values owns an interval of equal width.
    """
    return images.to(torch.float32).mul(127.5).add_(128.0).clamp_(0.0, 255.0).to(torch.uint8)


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images with their labels, all of a split.

    Arguments:
        images: uint8 (N, C, H, W); may lie in a memory-mapped file.
        labels: int64 (N,).
        source: the set that they were decoded from, which identifies them; None where their pixels do.
    """

    images: Tensor
    labels: Tensor
    source: Images | None = None

    prefetch: ClassVar[int] = 0

    def __post_init__(self) -> None:
        assert self.images.dtype == torch.uint8 and self.images.ndim == 4, "images are uint8 (N, C, H, W)"
        assert self.labels.dtype == torch.int64 and self.labels.shape == self.images.shape[:1], "labels are int64 (N,)"

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str | None:
        """That of the source, so that decoding beforehand makes no other set of it."""
        return None if self.source is None else self.source.fingerprint

    @property
    def device(self) -> torch.device:
        """Where the images are."""
        return self.images.device

    def to(self, device: torch.device | str) -> ImageSet:
        """The same images on a device; nothing is copied if they are there already."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

    def select(self, rows: Tensor) -> ImageSet:
        """The images of the given rows (num,), in that order, as one gather."""
        here, source = rows.to(self.images.device), None if self.source is None else self.source.select(rows.cpu())
        return ImageSet(self.images.index_select(0, here), self.labels.index_select(0, here), source)

    def subset(self, num: int) -> ImageSet:
        """A fixed random subset, see `subset_rows`."""
        return self.select(subset_rows(num, len(self)))

    def batch(self, pick: Pick) -> Batch:
        """`image` uint8 (B, C, H, W) and `label` int64 (B,)."""
        rows = pick.rows.to(self.images.device)
        images, labels = self.images.index_select(0, rows), self.labels.index_select(0, rows)
        return {"image": mirror(images, pick.flips), "label": labels}
