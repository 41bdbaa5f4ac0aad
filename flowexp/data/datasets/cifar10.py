"""CIFAR-10: 60 000 colour pictures in ten classes (Krizhevsky 2009)."""

from __future__ import annotations

import io
import pickle
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch

from flowexp.data.base import ImageDataModule
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.images import ImageSet
from flowexp.data.storage.downloads import check_md5, download


class CIFAR10(ImageDataModule):
    """32 x 32 colour images in ten classes, 50 000 to train on and 10 000 held out, from the "python version".

    Read from the folder cifar-10-batches-py or from the archive cifar-10-python.tar.gz in `root` (which may also be one
    of the two), or downloaded into `root`. The archive is not unpacked.
    """

    name = "cifar10"
    resolution = 32
    channels = 3
    num_classes = 10
    class_names = (
        "an airplane",
        "an automobile",
        "a bird",
        "a cat",
        "a deer",
        "a dog",
        "a frog",
        "a horse",
        "a ship",
        "a truck",
    )
    flips = True
    num_train = 50_000

    batch_rows: ClassVar[int] = 10_000
    url: ClassVar[str] = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    archive: ClassVar[str] = "cifar-10-python.tar.gz"
    archive_md5: ClassVar[str] = "c58f30108f718f92721af3b95e74349a"
    folder: ClassVar[str] = "cifar-10-batches-py"
    train_md5: ClassVar[dict[str, str]] = {
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    }
    test_md5: ClassVar[dict[str, str]] = {"test_batch": "40351d587109b95175f43aff81a1287e"}

    def prepare_data(self) -> None:
        """Downloads the archive, if neither it nor the folder is there.

        Raises:
            DataError: there is no network, or the download was not the file expected.
        """
        if self._source() is None:
            download(self.url, self.root / self.archive, self.archive_md5)

    def load(self) -> tuple[ImageSet, ImageSet]:
        source = self._source()
        if source is None:
            raise DataError(
                f"CIFAR-10 not found in {self.root} (looked for {self.folder} and {self.archive}): "
                f"put {self.archive} there, {INSTEAD}"
            )
        files = dict(self._from_folder(source) if source.is_dir() else self._from_archive(source))
        self._check_complete(files, source)
        return self._join(files, self.train_md5, source), self._join(files, self.test_md5, source)

    def _source(self) -> Path | None:
        """The folder of batches or the archive, the folder first."""
        folders = [path for path in (self.root / self.folder, self.root) if (path / "test_batch").is_file()]
        archives = [path for path in (self.root / self.archive, self.root) if path.is_file()]
        return next(iter(folders + archives), None)

    def _from_folder(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        for name, md5 in (self.train_md5 | self.test_md5).items():
            if (path := folder / name).is_file():
                check_md5(path, md5)
                yield name, path.read_bytes()

    def _from_archive(self, path: Path) -> Iterator[tuple[str, bytes]]:
        """Members are read where they are: nothing is written, so none can land outside its folder."""
        check_md5(path, self.archive_md5)
        wanted = {f"{self.folder}/{name}": name for name in self.train_md5 | self.test_md5}
        with tarfile.open(path, "r:gz") as archive:
            for member in archive:
                if member.isfile() and member.name in wanted and (file := archive.extractfile(member)) is not None:
                    yield wanted[member.name], file.read()

    def _check_complete(self, files: dict[str, bytes], source: Path) -> None:
        if missing := [name for name in self.train_md5 | self.test_md5 if name not in files]:
            raise DataError(
                f"{source} lacks {', '.join(missing)}: put {self.archive} into {self.root} instead, {INSTEAD}"
            )

    def _join(self, files: dict[str, bytes], names: Iterable[str], source: Path) -> ImageSet:
        batches = [_read_batch(files[name], self.batch_rows, source / name) for name in names]
        images = np.concatenate([pixels for pixels, _ in batches]).reshape(-1, 3, 32, 32)
        return ImageSet(torch.from_numpy(images), torch.cat([labels for _, labels in batches]))


class _ArraysOnly(pickle.Unpickler):
    """Unpickles containers, numbers, strings and numpy arrays; anything else in the file is refused, not run."""

    # What arrays were pickled with in 2009, under whichever name this numpy has it now.
    allowed: ClassVar[dict[tuple[str, str], Any]] = {
        ("numpy.core.multiarray", "_reconstruct"): np.empty(0).__reduce__()[0],
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
    }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.allowed:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}")
        return self.allowed[module, name]


def _read_batch(contents: bytes, rows: int, source: Path) -> tuple[np.ndarray, torch.Tensor]:
    """Pixels uint8 (rows, 3072), channel by channel, and labels int64 (rows,) of a pickled batch."""
    try:
        batch = _ArraysOnly(io.BytesIO(contents), encoding="bytes").load()
        pixels, labels = batch[b"data"], np.asarray(batch[b"labels"], np.int64)
    except Exception as error:  # a damaged pickle can raise anything
        raise DataError(f"{source} is no batch of CIFAR-10 ({error}): replace it, {INSTEAD}") from error
    if pixels.dtype != np.uint8 or pixels.shape != (rows, 3072) or labels.shape != (rows,):
        raise DataError(
            f"{source} must hold {rows} images of 3072 bytes, got {pixels.dtype} {pixels.shape}: replace it, {INSTEAD}"
        )
    return pixels, torch.from_numpy(labels)
