"""Fashion-MNIST: 70 000 grey pictures of clothes (Xiao et al. 2017)."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from flowexp.data.base import ImageDataModule
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.images import ImageSet
from flowexp.data.storage.downloads import download
from flowexp.data.storage.idx import parse_idx, read_bytes
from flowexp.records.files.fingerprint import md5_of


class FashionMNIST(ImageDataModule):
    """28 x 28 grey images in ten classes, 60 000 to train on and 10 000 held out, from the four idx files.

    They are looked for in `root`, in `root`/FashionMNIST/raw (where torchvision puts them) and where Debian's package
    dataset-fashion-mnist puts them; otherwise they are downloaded into `root`. The files may be gzipped or not.
    """

    name = "fashion_mnist"
    resolution = 28
    channels = 1
    num_classes = 10
    class_names = (
        "a T-shirt",
        "trousers",
        "a pullover",
        "a dress",
        "a coat",
        "a sandal",
        "a shirt",
        "a sneaker",
        "a bag",
        "an ankle boot",
    )

    num_train: int = 60_000
    num_test: ClassVar[int] = 10_000
    system_folder: ClassVar[Path] = Path("/usr/share/datasets/fashion-mnist")
    url: ClassVar[str] = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
    # Of the published .gz files, for downloads; Debian packs the same contents anew.
    packed_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "train-labels-idx1-ubyte": "25c81989df183df01b3e8a0aad5dffbe",
        "t10k-images-idx3-ubyte": "bef4ecab320f06d8554ea6380940ec79",
        "t10k-labels-idx1-ubyte": "bb300cfdad3c16e7a12a480ee83cd310",
    }
    # Of the contents: the original MNIST has files of the same names and sizes.
    contents_md5: ClassVar[dict[str, str]] = {
        "train-images-idx3-ubyte": "f4a8712d7a061bf5bd6d2ca38dc4d50a",
        "train-labels-idx1-ubyte": "9018921c3c673c538a1fc5bad174d6f9",
        "t10k-images-idx3-ubyte": "8181f5470baa50b63fa0f6fddb340f0a",
        "t10k-labels-idx1-ubyte": "15d484375f8d13e6eb1aabb0c3f46965",
    }

    def prepare_data(self) -> None:
        """Downloads what is missing, if there is no complete set of files in any of the places.

        Raises:
            DataError: there is no network, or the download was not the file expected.
        """
        if self._files() is None:
            for name, md5 in self.packed_md5.items():
                if _find(self.root, name) is None:
                    download(f"{self.url}/{name}.gz", self.root / f"{name}.gz", md5)

    def load(self) -> tuple[ImageSet, ImageSet]:
        files = self._files()
        if files is None:
            raise DataError(
                f"Fashion-MNIST not found in {', '.join(map(str, self._places()))}: install Debian's package "
                f"dataset-fashion-mnist, put {', '.join(f'{name}.gz' for name in self.contents_md5)} "
                f"into {self.root}, {INSTEAD}"
            )
        return self._read(files, "train", self.num_train), self._read(files, "t10k", self.num_test)

    def _places(self) -> tuple[Path, ...]:
        return self.root, self.root / "FashionMNIST" / "raw", self.system_folder

    def _files(self) -> dict[str, Path] | None:
        """The four files of the first place that has them all."""
        for place in self._places():
            found = {name: path for name in self.contents_md5 if (path := _find(place, name)) is not None}
            if len(found) == len(self.contents_md5):
                return found
        return None

    def _read(self, files: dict[str, Path], split: str, num: int) -> ImageSet:
        images = self._array(files, f"{split}-images-idx3-ubyte", (num, self.resolution, self.resolution))
        labels = self._array(files, f"{split}-labels-idx1-ubyte", (num,))
        return ImageSet(torch.from_numpy(images).unsqueeze(1), torch.from_numpy(labels).long())

    def _array(self, files: dict[str, Path], name: str, shape: tuple[int, ...]) -> np.ndarray:
        contents = read_bytes(files[name])
        array = parse_idx(contents, shape, files[name])
        if md5_of(contents) != self.contents_md5[name]:
            raise DataError(f"{files[name]} holds other images than Fashion-MNIST: replace it, {INSTEAD}")
        return array.copy()  # what parse_idx returns is read-only


def _find(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / f"{name}.gz", folder / name) if path.is_file()), None)
