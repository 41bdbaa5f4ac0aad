"""What does not grow with the number of images: a batch of latents, an encoded image, and the memory of both."""

from __future__ import annotations

import io
import subprocess
import sys
import zlib
from collections.abc import Callable
from contextlib import ExitStack, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from time import process_time
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.evaluating import peak_of_this_process, peaks
from benchmarks.sizes import Size
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, Contestant, stopwatch
from flowexp.data import LatentCache, Manifest
from flowexp.data.datasets.latents import LatentSet
from flowexp.data.loader import BatchLoader
from flowexp.encode import encode

SHAPE = (4, 32, 32)  # of a latent of 256 x 256 pixels
FEW = 10_000
BATCHES = 4  # that are timed as one
SHARD = 512  # images, of the part that `encode` writes


def latents(size: Size, rounds: int) -> Result:
    """A batch of 256 latents at random, and an image through `encode`, of ImageNet's 1.28 million against 10,000.

    Files of the real size and shape for any network (12 x 384 x 6), sparse but for headers and checksums, which are
    compared as always. `encode` writes one shard of the many, with a stand-in for the autoencoder. Processor's seconds,
    and the peaks of the memory of processes that do the same.
    """
    many, few = f"{size.num_latents:,}", f"{FEW:,}"
    with ExitStack() as stack:
        contestants: dict[str, Contestant] = {}
        for num in (size.num_latents, FEW):
            folders = [Path(stack.enter_context(TemporaryDirectory())) for _ in range(2)]
            read = batches(sparse_cache(folders[0], num))
            contestants[f"batch of {num:,}"] = stopwatch(read, clock=process_time)
            contestants[f"encode of {num:,}"] = stopwatch(encoding(folders[1], num), clock=process_time)
        timings = Comparison(contestants).run(rounds)
    return Result(
        [
            # 1.5 and not 1: of 10,000 several rows of a batch lie in one file, and the system has all of them in memory
            compare(timings, f"batch of {many}", f"batch of {few}", Promise(1.5)),
            compare(timings, f"encode of {many}", f"encode of {few}", Promise(1.2)),
            *peaks(peak_of, size.num_latents, FEW, size),
        ]
    )


def manifest(num: int, shard_size: int = 4096) -> Manifest:
    """That of so many training images."""
    counts, images = {"train": num, "test": 1}, {"train": "simulated", "test": "simulated"}
    return Manifest("imagenet", 256, counts, images, 2, "stand-in", "none", 0.18215, list(SHAPE), shard_size=shard_size)


def sparse_cache(folder: Path, num: int) -> LatentCache:
    """A cache of `num` latents that are all zero and take no room: their files have a header, a hole and checksums."""
    cache = LatentCache(folder)
    cache.begin(manifest(num), labels(num))
    for shard in cache.shards("train"):
        shape = (shard.stop - shard.start, 2, 2, *SHAPE)
        row = np.zeros(shape[1:], np.float16)
        _write_with_hole(cache.path(shard), shape, np.full(shape[0], zlib.crc32(row.data), "<u4"))
    return cache


def _write_with_hole(path: Path, shape: tuple[int, ...], sums: np.ndarray) -> None:
    about = {"descr": "<f2", "fortran_order": False, "shape": shape}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, about)
        file.seek(2 * int(np.prod(shape, dtype=np.int64)), 1)
        file.write(sums.tobytes())


def labels(num: int) -> dict[str, np.ndarray]:
    """The small arrays of a cache."""
    return {"train_labels": np.arange(num) % 1000, "test_labels": np.zeros(1, np.int64)}


def batches(cache: LatentCache) -> Callable[[], None]:
    """Some batches of 256, each of other rows at random."""
    classes = torch.from_numpy(cache.small("train_labels"))
    images = LatentSet(cache.latents("train"), torch.arange(len(classes)), classes, 0.18215)
    loader = BatchLoader(images, 256, flip=True)
    steps = iter(range(10**9))

    def read() -> None:
        for _ in range(BATCHES):
            images.batch(loader._pick(*divmod(next(steps), len(loader))))

    return read


@dataclass(frozen=True)
class Stream:
    """Pictures that are made when they are asked for."""

    num: int
    prefetch: int = 2

    def __len__(self) -> int:
        return self.num

    def select(self, rows: Tensor) -> SimpleNamespace:
        """Black ones, uint8 (num, 3, 256, 256)."""
        return SimpleNamespace(images=torch.zeros(len(rows), 3, 256, 256, dtype=torch.uint8))


def encoding(folder: Path, num: int) -> Callable[[], None]:
    """`encode` of one shard of so many pictures, anew each time."""
    cache = LatentCache(folder)
    cache.begin(manifest(num, SHARD), labels(num))
    data: Any = SimpleNamespace(train=Stream(num), test=Stream(1))
    vae: Any = SimpleNamespace(
        encode=lambda images: (torch.zeros(len(images), *SHAPE), torch.ones(len(images), *SHAPE))
    )

    def write() -> None:
        shard = next(cache.shards("train"))
        cache.path(shard).unlink(missing_ok=True)
        with redirect_stderr(io.StringIO()):  # its bar
            encode(data, vae, cache, [shard], torch.device("cpu"), batch_size=32)

    return write


def peak_of(num: int) -> float:
    """MB of a process that reads latents of so many, and encodes of as many."""
    command = [sys.executable, "-m", "benchmarks.counting", str(num)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main(num: int) -> None:
    """Does the work and prints the peak of this process's memory, MB."""
    with TemporaryDirectory() as read, TemporaryDirectory() as written:
        batches(sparse_cache(Path(read), num))()
        encoding(Path(written), num)()
    print(peak_of_this_process())


if __name__ == "__main__":
    main(int(sys.argv[1]))
