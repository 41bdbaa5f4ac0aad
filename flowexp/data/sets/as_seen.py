"""Pictures of any format and mode as a person sees them, and as squares."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import suppress
from typing import Literal

import numpy as np
from PIL import Image, ImageCms, ImageOps

from flowexp.data.sets.crop import as_colour, centre_crop

_WHITE = (255, 255, 255)
_SRGB = ImageCms.createProfile("sRGB")


def as_seen(image: Image.Image) -> Image.Image:
    """A picture in 8-bit sRGB: turned as its EXIF says, its colour profile applied, on white where it is transparent.

    Of several frames the first counts. Of 16 bits the higher 8 stay.

    Raises:
        ValueError: pixels of no known range, such as floats.
    """
    image = _on_white(_turned(image))
    profile = image.info.get("icc_profile")
    if profile and image.mode in ("RGB", "CMYK", "L"):
        with suppress(ImageCms.PyCMSError, OSError):  # a damaged profile, or one of other channels
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            seen = ImageCms.profileToProfile(image, source, _SRGB, outputMode="RGB")
            return image.convert("RGB") if seen is None else seen
    return as_colour(image)


def _turned(image: Image.Image) -> Image.Image:
    """`exif_transpose` forgets the format, by which 16 bits are known."""
    turned = ImageOps.exif_transpose(image)
    turned.format = image.format
    return turned


def _on_white(image: Image.Image) -> Image.Image:
    if not image.has_transparency_data or image.mode.startswith("I"):
        return image
    coloured = image.convert("RGBA")
    seen = Image.new("RGBA", image.size, (*_WHITE, 255))
    seen.alpha_composite(coloured)
    flat = seen.convert("RGB")
    flat.info = {key: value for key, value in image.info.items() if key == "icc_profile"}
    return flat


def _stretched(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC))


def _padded(image: Image.Image, size: int) -> np.ndarray:
    return np.asarray(ImageOps.pad(image, (size, size), Image.Resampling.BICUBIC, _WHITE))


Square = Literal["crop", "pad", "stretch"]
SQUARES: dict[str, Callable[[Image.Image, int], np.ndarray]] = {
    "crop": centre_crop,  # the middle, as ADM cuts it
    "pad": _padded,  # all of it, between white bars
    "stretch": _stretched,  # all of it, distorted
}


def square(image: Image.Image, size: int, how: str, channels: int) -> np.ndarray:
    """A picture as seen, made square by `how` (a key of SQUARES): uint8 (channels, size, size), grey or colour."""
    pixels = SQUARES[how](as_seen(image), size)
    if channels == 1:
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels)).convert("L"))[None]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))
