"""Photographs of any size as squares, as ADM and all that compare with it make them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from flowexp.data.errors import DataError


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of a picture, its shorter side scaled to `size`: uint8 (size, size, 3).

    ADM's `center_crop_arr` (guided-diffusion, image_datasets.py), which SiT, DiT and REPA take over: halved by box
    filters while it is at least twice as large, then bicubic to the size.
    """
    image = image.convert("RGB")
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def read_square(path: Path, size: int) -> np.ndarray:
    """The picture in a file, cropped, channel by channel: uint8 (3, size, size).

    Raises:
        DataError: the file is not there, or is damaged.
    """
    try:
        return centre_crop(Image.open(io.BytesIO(path.read_bytes())), size).transpose(2, 0, 1)
    except (OSError, SyntaxError) as error:  # SyntaxError is what Pillow raises for some broken headers
        raise DataError(f"{path} is missing or damaged ({error}): put a whole one there") from error
