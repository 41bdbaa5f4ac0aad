"""Latents and embedded captions on disk: shards that processes write apart, and a manifest of what made them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from flowexp.data.errors import DataError
from flowexp.data.storage.npy_files import ShardedArray
from flowexp.records.files import atomic, fingerprint
from flowexp.records.files.npy import CheckedRows, read_rows, save_array, write_npy_atomically

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
        digests: of the small arrays, by name: they decide nothing, and may differ between devices in the last digits.
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
    version: int = 2
    digests: dict[str, str] = field(default_factory=dict, compare=False)

    def __post_init__(self) -> None:
        sizes = [*self.shape, *(self.text_shape or ()), *self.num_images.values(), self.shard_size]
        if set(self.num_images) != set(SPLITS) or self.flips not in (1, 2) or not all(_is_size(size) for size in sizes):
            raise ValueError("its numbers are not those of a cache")


def _is_size(value: Any) -> bool:
    return isinstance(value, int) and value > 0


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
    captions per image, (N,) each, the empty caption (L, D), and the manifest.

    A shard appears when it is complete, also where several processes write the same one. It ends with a checksum of
    each row, which every use of the row compares: reading all of 43 GB before the first step would take minutes, and
    would not see what the disk loses later.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        self._counts: dict[str, np.ndarray] = {}  # of the captions of each image, by split: every shard needs its part

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
        except (OSError, ValueError, TypeError, AttributeError) as error:
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
                    self._restore(arrays)
                else:
                    self._start(manifest, arrays)
            for split in SPLITS:
                atomic.remove_partials(self.folder / split)
        except OSError as error:
            raise DataError(f"latents could not be written to {self.folder} ({error}): give another output") from error

    def _start(self, manifest: Manifest, arrays: dict[str, np.ndarray]) -> None:
        digests = {name: save_array(self.folder / f"{name}.npy", array) for name, array in arrays.items()}
        atomic.write_json(self.folder / _MANIFEST, asdict(manifest) | {"digests": digests})

    def _check_same(self, manifest: Manifest) -> None:
        ours, theirs = asdict(manifest), asdict(self.manifest)
        decides = [key for key in ours if key != "digests"]
        if other := [f"{key}={theirs[key]} instead of {ours[key]}" for key in decides if ours[key] != theirs[key]]:
            raise DataError(f"{self.folder} holds other latents ({', '.join(other)}): give another output")

    def _restore(self, arrays: dict[str, np.ndarray]) -> None:
        """Writes those of the small arrays anew that are missing or damaged."""
        manifest = self.manifest
        if lost := [name for name in arrays if not self._is_sound(name)]:
            digests = {name: save_array(self.folder / f"{name}.npy", arrays[name]) for name in lost}
            atomic.write_json(self.folder / _MANIFEST, asdict(manifest) | {"digests": manifest.digests | digests})

    def _is_sound(self, name: str) -> bool:
        try:
            self.small(name)
        except DataError:
            return False
        return True

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
        """Whether all its files are there, whole and of the right shape."""
        kinds = ("",) if self.manifest.text is None else ("", "_text")
        try:
            return all(self.path(shard, kind).exists() and self._rows(shard, kind) for kind in kinds)
        except DataError:
            return False

    def write(self, shard: Shard, latents: Iterable[np.ndarray]) -> None:
        """Writes a shard's latents, from parts (rows, flips, 2, C, h, w) in float16."""
        self._write(shard, "", latents)

    def write_text(self, shard: Shard, embeddings: Iterable[np.ndarray]) -> None:
        """Writes the embeddings of a shard's captions, from parts (captions, L, D) in float16."""
        self._write(shard, "_text", embeddings)

    def _write(self, shard: Shard, kind: str, parts: Iterable[np.ndarray]) -> None:
        path = self.path(shard, kind)
        try:
            write_npy_atomically(path, self._shape(shard, kind), np.float16, parts, row_sums=True)
        except OSError as error:
            raise DataError(f"{path} could not be written ({error}): make room, and run the same again") from error

    def _shape(self, shard: Shard, kind: str) -> tuple[int, ...]:
        manifest = self.manifest
        if kind == "_text":
            if shard.split not in self._counts:
                self._counts[shard.split] = self.small(f"{shard.split}_captions")
            captions = self._counts[shard.split][shard.start : shard.stop]
            return (int(captions.sum()), *(manifest.text_shape or ()))
        return (shard.stop - shard.start, manifest.flips, 2, *manifest.shape)

    def small(self, name: str) -> np.ndarray:
        """One of the small arrays: <split>_labels, <split>_captions, null_text.

        Raises:
            DataError: it is damaged, or has other entries than the manifest says.
        """
        path, digests = self.folder / f"{name}.npy", self.manifest.digests
        with _damage_of(path):
            array = np.load(path, allow_pickle=False)
            shape, dtype = self._small_form(name)
            if (array.shape, array.dtype) != (shape, dtype):
                raise ValueError(f"it must be {dtype} {shape}, got {array.dtype} {array.shape}")
            if name in digests and fingerprint.of_file(path) != digests[name]:
                raise ValueError("its content is not what was written")
        return array

    def _small_form(self, name: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
        """Shape and dtype of a small array."""
        if name == "null_text":
            return tuple(self.manifest.text_shape or ()), np.dtype(np.float16)
        return (self.manifest.num_images[name.split("_")[0]],), np.dtype(np.int64)

    def latents(self, split: str) -> ShardedArray:
        """All latents of a split, not read yet: rows (flips, 2, C, h, w).

        Raises:
            DataError: shards are missing or damaged.
        """
        return self._read(split, "")

    def text(self, split: str) -> ShardedArray:
        """All embedded captions of a split, not read yet: rows (L, D); see `latents`."""
        return self._read(split, "_text")

    def _read(self, split: str, kind: str) -> ShardedArray:
        shards = list(self.shards(split))
        if missing := [path for shard in shards if not (path := self.path(shard, kind)).exists()]:
            raise DataError(
                f"{len(missing)} of {len(shards)} shards are missing in {self.folder / split}, such as "
                f"{missing[0].name}: run the same `flowexp encode` again, it goes on where it was stopped"
            )
        return ShardedArray([self._rows(shard, kind) for shard in shards])

    def _rows(self, shard: Shard, kind: str) -> CheckedRows:
        path, shape = self.path(shard, kind), self._shape(shard, kind)
        with _damage_of(path):
            rows = read_rows(path, shape, np.float16)
            if rows.sums is None:
                raise ValueError("it lacks its checksums")
        return rows

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


@contextmanager
def _damage_of(path: Path) -> Iterator[None]:
    """Names the file in whatever a damaged one raises."""
    try:
        yield
    except (OSError, ValueError, EOFError, SyntaxError, KeyError, TypeError) as error:  # numpy parses headers as Python
        reason = " ".join(str(error).split())
        raise DataError(f"{path} is damaged ({reason}): delete it and run the same `flowexp encode` again") from error
