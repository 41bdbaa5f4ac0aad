"""Images at a noise level, with noise that belongs to the image: what every diagnostic feeds to the network."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypedDict, TypeVar, Unpack

import torch
from torch import Tensor

from flowexp.flow.randomness import keyed_generator
from flowexp.flow.time import as_noise_level

BLOCK = 256  # images per generator of noise; one per image would cost more than the network
_LEVELS = 10**6  # noise levels are distinct to six decimals

Prepare = Callable[[Tensor], Tensor]
Result = TypeVar("Result")


@dataclass(frozen=True)
class NoisedBatch:
    """Some images of a set, on the network's device.

    rows: their places in the set, all in one block. data, noise: (B, C, H, W). t: (B,). label: (B, ...) or None.
    """

    rows: slice
    data: Tensor
    noise: Tensor
    t: Tensor
    label: Tensor | None = None


class Feed(TypedDict, total=False):
    """How images go through a network: the options that every diagnostic passes on to `noised_batches`."""

    labels: Tensor | None
    batch_size: int
    device: torch.device | str
    prepare: Prepare | None


def along_levels(
    part: Callable[[NoisedBatch, float], Tensor],
    point: Callable[[float, Tensor], Result],
    images: Tensor,
    levels: Iterable[float],
    seed: int,
    **feed: Unpack[Feed],
) -> list[Result]:
    """point(level, parts) at each level: the walk over levels and batches that diagnostics of a network share.

    part: the result for a batch at a level, (..., B). parts: that for all images, (..., N).
    """
    found = []
    for level in levels:
        batches = noised_batches(images, level, seed, **feed)
        found.append(point(level, torch.cat([part(batch, level) for batch in batches], dim=-1)))
    return found


def noised_batches(
    images: Tensor,
    level: float,
    seed: int,
    batch_size: int = 256,
    device: torch.device | str = "cpu",
    prepare: Prepare | None = None,
    labels: Tensor | None = None,
) -> Iterator[NoisedBatch]:
    """All `images` (N, C, H, W) with their noise at `level`, at most min(batch_size, 256) at a time.

    An image's noise is decided by (seed, level, its place in the set) alone, whatever the batch size and device.

    prepare: from stored images to what the network works on, such as `data.to_float`; None takes floats as they are.
    labels: of all images, classes (N,) or text embeddings (N, L, D).

    Raises ValueError for uint8 images without `prepare`, and for a level outside of [0, 1].
    """
    level = as_noise_level(level)  # the integer 1 would make t a tensor of integers
    if prepare is None and not images.is_floating_point():
        raise ValueError(f"images of {images.dtype} need prepare, such as flowexp.data.to_float")
    for start in range(0, len(images), BLOCK):
        block = images[start : start + BLOCK]
        noise = _block_noise(seed, level, start // BLOCK, images.shape[1:])[: len(block)]
        for first in range(0, len(block), batch_size):
            part = slice(first, min(first + batch_size, len(block)))
            data = block[part].to(device)
            data = data if prepare is None else prepare(data)
            t = torch.full((len(data),), level, device=device)
            rows = slice(start + part.start, start + part.stop)
            label = None if labels is None else labels[rows].to(device)
            yield NoisedBatch(rows, data, noise[part].to(device), t, label)


def further_noise(batch: NoisedBatch, level: float, seed: int, number: int) -> Tensor:
    """Further noise (B, C, H, W) of a batch, by `number` (1, 2, ...), as reproducible per image as the first."""
    block, first = divmod(batch.rows.start, BLOCK)
    noise = _block_noise(seed, level, block, batch.data.shape[1:], number)
    return noise[first : first + len(batch.data)].to(batch.data)


def _block_noise(seed: int, level: float, block: int, shape: torch.Size, *number: int) -> Tensor:
    """Noise of a whole block, so that the last, shorter one has the noise it would have in a larger set."""
    return torch.randn(BLOCK, *shape, generator=keyed_generator(seed, round(level * _LEVELS), block, *number))
