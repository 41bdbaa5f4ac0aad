"""The identity of a set of pictures: its pixels, or the bytes of its files; neither their place nor their age."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.batch_rows import Images
from flowexp.data.storage.file_tree import FileTree
from flowexp.flow.randomness import keyed_generator
from flowexp.records.files import fingerprint

_READ = 0x1DE4  # keeps this stream apart from others with the same seed
MOST_FILES, MOST_BYTES = 2**14, 2**30  # read whole up to here
SAMPLE = 4096  # files that are read beyond: where one in a thousand changed, some of them do in 98 of 100 cases


def identity_of(images: Images) -> str:
    """16 hexadecimal digits that identify images and their order, by the fingerprint of the set or by its pixels."""
    return images.fingerprint or fingerprint_of_pixels(images.images)


def fingerprint_of_pixels(images: Tensor) -> str:
    """16 hexadecimal digits that identify the pixels of uint8 `images` (N, C, H, W), and their order and shape."""
    return fingerprint.of_content(str(tuple(images.shape)), images)


def identity_of_files(files: FileTree, names: Sequence[str], about: str = "") -> str:
    """16 hexadecimal digits that identify files in their order: by names, all sizes, and the contents of some.

    Small sets are read whole. Of others a fixed sample is, since reading all of ImageNet takes as long as an epoch:
    another file of the same size can pass unseen, thousands of them cannot.

    about: what else decides the pictures, such as their resolution.

    Raises:
        DataError: a file that is missing or empty.
    """
    sizes = files.sizes(names)
    if 0 in sizes:
        raise DataError(f"{names[sizes.index(0)]} in {files.path} is empty: put a whole one there, {INSTEAD}")
    read = [names[row] for row in _rows_read(sizes)]
    parts = [about, *names, *map(str, sizes), *map(str, files.checksums(read))]
    return fingerprint.of_content("\n".join(parts))


def _rows_read(sizes: Sequence[int]) -> list[int]:
    """The files that decide the identity."""
    num = len(sizes)
    if num <= MOST_FILES and sum(sizes) <= MOST_BYTES:
        return list(range(num))
    return torch.randperm(num, generator=keyed_generator(_READ, num))[:SAMPLE].tolist()
