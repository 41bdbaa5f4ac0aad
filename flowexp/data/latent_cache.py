"""Latents and embedded captions on disk: shards that processes write apart, and a manifest of what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from flowexp.data.errors import DataError
from flowexp.data.npy_files import ShardedArray, write_npy_atomically

_MANIFEST = "manifest.json"
SPLITS = ("train", "test")


@dataclass(frozen=True)
class Manifest:
    """All that decides the numbers in a cache. Two with the same manifest are the same.

    Arguments:
        dataset, resolution: of the pictures.
        num_images: per split.
        images: fingerprint of the pictures, per split.
        flips: 1, or 2 where the mirrored pictures are encoded too.
        vae, vae_weights: its name and the fingerprint of its weights.
        scale: what latents are to be multiplied by; they are stored without it.
        shape: (C, h, w) of a latent.
        text, text_weights, text_shape: the caption encoder, and (L, D); None without captions.
        shard_size: images per shard.
        dtype, version: of the format.
    """

    dataset: str
    resolution: int
    num_images: dict[str, int]
    images: dict[str, str]
    flips: int
    vae: str
    vae_weights: str
    scale: float
    shape: list[int]
    text: str | None = None
    text_weights: str | None = None
    text_shape: list[int] | None = None
    shard_size: int = 4096
    dtype: str = "float16"
    version: int = 1


@dataclass(frozen=True)
class Shard:
    """Rows [start, stop) of a split, in a file each for latents and captions."""

    split: str
    number: int
    start: int
    stop: int


class LatentCache:
    """A folder of shards.

    `<split>/<number>.npy`: float16 (rows, flips, 2, C, h, w), the mean and the standard deviation of each latent.
    `<split>/<number>_text.npy`: float16 (captions of these rows, L, D). Beside them the labels and the numbers of
    captions per image, (N,) each, the empty caption (L, D), and the manifest. A shard appears when it is complete.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()

    @property
    def manifest(self) -> Manifest:
        """What the cache holds.

        Raises:
            DataError: there is none, or it is damaged.
        """
        path = self.folder / _MANIFEST
        try:
            return Manifest(**json.loads(path.read_text()))
        except FileNotFoundError as error:
            raise DataError(
                f"latents not found in {self.folder}: encode them once by `flowexp encode data=... "
                f"output={self.folder}`, or give data.root"
            ) from error
        except (OSError, ValueError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}): encode the latents again into another folder") from error

    def begin(self, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
        """Starts a cache, or goes on with one of the same manifest. `arrays`: the small files, by name.

        Raises:
            DataError: the folder holds other latents, or cannot be written.
        """
        try:
            for split in SPLITS:
                (self.folder / split).mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / "manifest.lock"):
                if (self.folder / _MANIFEST).exists():
                    self._check_same(manifest)
                else:
                    self._start(manifest, arrays)
        except OSError as error:
            raise DataError(f"latents could not be written to {self.folder} ({error}): give another output") from error

    def _start(self, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
        for name, array in arrays.items():
            np.save(self.folder / f"{name}.npy", array)
        partial = self.folder / f"{_MANIFEST}.partial"
        partial.write_text(json.dumps(asdict(manifest), indent=1) + "\n")
        partial.replace(self.folder / _MANIFEST)

    def _check_same(self, manifest: Manifest) -> None:
        ours, theirs = asdict(manifest), asdict(self.manifest)
        if other := [f"{key}={theirs[key]} instead of {ours[key]}" for key in ours if ours[key] != theirs[key]]:
            raise DataError(f"{self.folder} holds other latents ({', '.join(other)}): give another output")

    def shards(self, *splits: str) -> Iterator[Shard]:
        """The shards of these splits, in order; of all without any."""
        manifest = self.manifest
        for split in splits or SPLITS:
            total = manifest.num_images[split]
            for number, start in enumerate(range(0, total, manifest.shard_size)):
                yield Shard(split, number, start, min(start + manifest.shard_size, total))

    def path(self, shard: Shard, kind: str = "") -> Path:
        """The file of a shard's latents, or of its captions (kind "_text")."""
        return self.folder / shard.split / f"{shard.number:05d}{kind}.npy"

    def has(self, shard: Shard) -> bool:
        """Whether all its files are there, and so complete."""
        kinds = ("",) if self.manifest.text is None else ("", "_text")
        return all(self.path(shard, kind).exists() for kind in kinds)

    def write(self, shard: Shard, latents: Iterable[np.ndarray]) -> None:
        """Writes a shard's latents, from parts (rows, flips, 2, C, h, w) in float16."""
        manifest = self.manifest
        shape = (shard.stop - shard.start, manifest.flips, 2, *manifest.shape)
        self._write(self.path(shard), shape, latents)

    def write_text(self, shard: Shard, num: int, embeddings: Iterable[np.ndarray]) -> None:
        """Writes the embeddings of a shard's `num` captions, from parts (captions, L, D) in float16."""
        self._write(self.path(shard, "_text"), (num, *(self.manifest.text_shape or ())), embeddings)

    def _write(self, path: Path, shape: tuple[int, ...], parts: Iterable[np.ndarray]) -> None:
        try:
            write_npy_atomically(path, shape, np.float16, parts)
        except OSError as error:
            raise DataError(f"{path} could not be written ({error}): make room, and run the same again") from error

    def small(self, name: str) -> np.ndarray:
        """One of the small arrays: <split>_labels, <split>_captions, null_text."""
        return self._open(self.folder / f"{name}.npy", mapped=False)

    def latents(self, split: str) -> ShardedArray:
        """All latents of a split, mapped: rows (flips, 2, C, h, w).

        Raises:
            DataError: shards are missing or damaged.
        """
        return self._read(split, "")

    def text(self, split: str) -> ShardedArray:
        """All embedded captions of a split, mapped: rows (L, D); see `latents`."""
        return self._read(split, "_text")

    def _read(self, split: str, kind: str) -> ShardedArray:
        paths = [self.path(shard, kind) for shard in self.shards(split)]
        if missing := [path for path in paths if not path.exists()]:
            raise DataError(
                f"{len(missing)} of {len(paths)} shards are missing in {self.folder / split}, such as "
                f"{missing[0].name}: run the same `flowexp encode` again, it goes on where it was stopped"
            )
        return ShardedArray([self._open(path) for path in paths])

    def _open(self, path: Path, mapped: bool = True) -> np.ndarray:
        try:
            return np.load(path, mmap_mode="r" if mapped else None)
        except (OSError, ValueError, EOFError) as error:
            raise DataError(
                f"{path} is damaged ({error}): delete it and run the same `flowexp encode` again"
            ) from error

    def check(self, **wanted: Any) -> None:
        """Compares the manifest with what a run wants.

        Raises:
            DataError: something differs.
        """
        found = asdict(self.manifest)
        if other := [
            f"{key}={found[key]}, this run wants {want}" for key, want in wanted.items() if found[key] != want
        ]:
            raise DataError(
                f"the latents in {self.folder} were made with {'; '.join(other)}: change the setting, or encode again "
                "into another folder"
            )
