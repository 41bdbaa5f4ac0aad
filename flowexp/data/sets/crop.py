"""Photographs of any size as squares, as ADM and all that compare with it make them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
from PIL import Image

from flowexp.data.errors import DataError

_OF_16_BITS = ("PNG", "PPM")  # formats whose pixels of mode I reach from 0 to 65535


def as_colour(image: Image.Image) -> Image.Image:
    """A picture as Pillow turns it into 8-bit colour, and ADM with it: transparency and EXIF are passed over.

    Of 16 bits of grey the higher 8 stay, as Pillow reads 16-bit colour; its conversion of grey would
    make white of all above 255.

    Raises:
        ValueError: pixels of no known range, such as floats.
    """
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format in _OF_16_BITS):
        image = Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise ValueError(f"its pixels are of mode {image.mode}, whose range can only be guessed: convert it to 8 bits")
    return image.convert("RGB")


def centre_crop(image: Image.Image, size: int) -> np.ndarray:
    """The middle of a picture, its shorter side scaled to `size`: uint8 (size, size, 3).

    ADM's `center_crop_arr` (guided-diffusion, image_datasets.py), which SiT, DiT and REPA take over: halved by box
    filters while it is at least twice as large, then bicubic to the size.
    """
    image = as_colour(image)
    while min(image.size) >= 2 * size:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = size / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    left, top = (image.width - size) // 2, (image.height - size) // 2
    return np.asarray(image)[top : top + size, left : left + size]


def read_square(path: Path, size: int) -> np.ndarray:
    """The picture in a file, cropped, channel by channel: uint8 (3, size, size).

    Raises:
        DataError: the file is not there, is damaged, or has pixels of no known range.
    """
    try:
        return centre_crop(Image.open(io.BytesIO(path.read_bytes())), size).transpose(2, 0, 1)
    except Exception as error:  # a damaged picture can raise anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} is missing or damaged ({reason}): put a whole one there") from error
