"""Random views of images, drawn on their device."""

from __future__ import annotations

import torch
from torch import Tensor


def crop_and_flip(
    images: Tensor,
    shift_frac: float,
    generator: torch.Generator,
    rows: slice = slice(None),
    num: int | None = None,
    flip: bool = True,
) -> Tensor:
    """Each image (B, C, H, W) moved by up to shift_frac of its side in both directions, and mirrored half the time.

    The random crop with padding of CIFAR-10's recipes (4 of 32: an eighth), padded with the edge: zero would be grey
    for pictures and anything for latents. Needs no loop and no synchronisation with the device.

    rows, num: views are drawn for `num` images, of which these are `rows`; for these alone, by default.
    flip: whether they are mirrored at all; a mirrored digit is no digit.
    """
    num = len(images) if num is None else num
    y = _shifted(num, images.shape[2], shift_frac, generator)[rows]
    x = _shifted(num, images.shape[3], shift_frac, generator)[rows]
    if flip:
        mirrored = torch.randint(2, (num, 1), generator=generator, device=generator.device)[rows].bool()
        x = torch.where(mirrored, x.flip(1), x)
    each = torch.arange(len(images), device=images.device)[:, None, None]
    return images[each, :, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def _shifted(num: int, side: int, shift_frac: float, generator: torch.Generator) -> Tensor:
    """For each of `num` images the places that 0..side-1 are read from, (num, side)."""
    most = round(shift_frac * side)
    shift = torch.randint(-most, most + 1, (num, 1), generator=generator, device=generator.device)
    return (torch.arange(side, device=generator.device) + shift).clamp(0, side - 1)
