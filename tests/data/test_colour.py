"""Pictures of every depth and mode become the 8-bit colour that they mean, or are refused by name."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from flowexp.data import DataError
from flowexp.data.sets.crop import read_square

DEEP = 4369  # of 65535: 17 of 255


def png_of_16_bits(path: Path, kind: int, channels: int, value: int = DEEP) -> None:
    """A PNG of 8 x 8 equal pixels, 16 bits a channel, by the specification. kind: 0 grey, 2 colour, +4 alpha."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))

    row = b"\0" + struct.pack(">H", value) * 8 * channels
    header = struct.pack(">IIBBBBB", 8, 8, 16, kind, 0, 0, 0)
    content = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(row * 8)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + content)


@pytest.mark.parametrize(("kind", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)], ids=["grey", "colour", "LA", "RGBA"])
@pytest.mark.parametrize(("value", "expected"), [(DEEP, 17), (0, 0), (65535, 255), (257 * 200, 200)])
def test_16_bits_become_the_8_bits_of_the_same_brightness(
    tmp_path: Path, kind: int, channels: int, value: int, expected: int
):
    png_of_16_bits(tmp_path / "a.png", kind, channels, value)
    assert (read_square(tmp_path / "a.png", 8) == expected).all()


@pytest.mark.parametrize("dtype", ["<u2", ">u2"])
def test_a_tiff_of_16_bits_is_read_in_either_order_of_bytes(tmp_path: Path, dtype: str):
    Image.fromarray(np.full((8, 8), DEEP, dtype)).save(tmp_path / "a.tiff")
    assert (read_square(tmp_path / "a.tiff", 8) == 17).all()


def test_a_pgm_of_16_bits_is_read(tmp_path: Path):
    (tmp_path / "a.pgm").write_bytes(b"P5 8 8 65535\n" + struct.pack(">H", DEEP) * 64)
    assert (read_square(tmp_path / "a.pgm", 8) == 17).all()


@pytest.mark.parametrize("dtype", [np.float32, np.int32])
def test_pixels_of_no_known_range_are_refused_by_name(tmp_path: Path, dtype: type):
    Image.fromarray(np.ones((8, 8), dtype)).save(tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff is missing or damaged .*mode [FI], whose range .* convert it"):
        read_square(tmp_path / "a.tiff", 8)


@pytest.mark.parametrize("transparency", [0, bytes([0, 128])])
def test_a_palette_gives_its_colours_whatever_is_transparent(tmp_path: Path, transparency: int | bytes):
    picture = Image.new("P", (8, 8), 1)
    picture.putpalette([9, 9, 9, 10, 200, 30])
    picture.save(tmp_path / "a.png", transparency=transparency)
    assert read_square(tmp_path / "a.png", 8)[:, 3, 3].tolist() == [10, 200, 30]


def test_a_picture_is_not_turned_by_its_exif_as_adm_does_not(tmp_path: Path):
    pixels = np.arange(8 * 8 * 3, dtype=np.uint8).reshape(8, 8, 3)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: to be turned by a quarter
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(read_square(tmp_path / "a.png", 8), pixels.transpose(2, 0, 1))


def test_whatever_pillow_raises_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    Image.new("RGB", (8, 8)).save(tmp_path / "large.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "gone.png")
    (tmp_path / "folder.png").mkdir()
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 16)  # a bomb has more than twice as many
    for name in ("large", "link", "folder"):
        with pytest.raises(DataError, match=rf"{name}\.png is missing or damaged"):
            read_square(tmp_path / f"{name}.png", 8)
