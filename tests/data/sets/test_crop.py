from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowexp.data import DataError
from flowexp.data.sets.crop import centre_crop, read_square


def noise(width: int, height: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


def halved(pixels: np.ndarray) -> np.ndarray:
    """Means of two columns, then of two rows, each rounded up, as Pillow does."""
    wide = pixels.astype(int)
    narrow = (wide[:, ::2] + wide[:, 1::2] + 1) // 2
    return (narrow[::2] + narrow[1::2] + 1) // 2


def test_a_picture_of_the_right_size_is_left_alone():
    image = noise(16, 16)
    assert np.array_equal(centre_crop(image, 16), np.asarray(image))


@pytest.mark.parametrize(("width", "height"), [(20, 16), (16, 21)])
def test_the_middle_is_cut_out_of_the_longer_side(width: int, height: int):
    image = noise(width, height)
    left, top = (width - 16) // 2, (height - 16) // 2
    assert np.array_equal(centre_crop(image, 16), np.asarray(image)[top : top + 16, left : left + 16])


def test_a_picture_four_times_as_large_is_halved_twice_by_means():
    image = noise(64, 64)
    assert np.array_equal(centre_crop(image, 16), halved(halved(np.asarray(image))))


def test_between_once_and_twice_the_size_the_shorter_side_is_scaled_bicubically():
    image = noise(31, 24)
    expected = np.asarray(image.resize((round(31 * 16 / 24), 16), Image.Resampling.BICUBIC))
    assert np.array_equal(centre_crop(image, 16), expected[:, 2:18])


def test_a_small_picture_is_enlarged_and_a_grey_one_gets_three_channels():
    assert centre_crop(noise(5, 9).convert("L"), 16).shape == (16, 16, 3)


@pytest.mark.slow
@pytest.mark.parametrize("content", [b"", b"text", None])
def test_a_file_that_is_no_picture_is_named(tmp_path: Path, content: bytes | None):
    if content is not None:
        (tmp_path / "a.JPEG").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.JPEG is missing or damaged"):
        read_square(tmp_path / "a.JPEG", 8)
