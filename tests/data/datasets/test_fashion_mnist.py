from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.data import DataError, FashionMNIST

SHAPES = {
    "train-images-idx3-ubyte": (6, 28, 28),
    "train-labels-idx1-ubyte": (6,),
    "t10k-images-idx3-ubyte": (3, 28, 28),
    "t10k-labels-idx1-ubyte": (3,),
}


def idx(shape: tuple[int, ...], seed: int) -> bytes:
    elements = np.random.default_rng(seed).integers(0, 10, shape, np.uint8)
    return struct.pack(f">BBBB{len(shape)}I", 0, 0, 8, len(shape), *shape) + elements.tobytes()


CONTENTS = {name: idx(shape, seed) for seed, (name, shape) in enumerate(SHAPES.items())}
PACKED = {name: gzip.compress(contents, mtime=0) for name, contents in CONTENTS.items()}


def md5s(files: dict[str, bytes]) -> dict[str, str]:
    return {name: hashlib.md5(contents).hexdigest() for name, contents in files.items()}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> type[FashionMNIST]:
    """The dataset with six and three images, and nothing installed on the machine."""
    for name, value in {
        "num_train": 6,
        "num_test": 3,
        "contents_md5": md5s(CONTENTS),
        "packed_md5": md5s(PACKED),
        "system_folder": tmp_path / "system",
        "url": (tmp_path / "site").as_uri(),
    }.items():
        monkeypatch.setattr(FashionMNIST, name, value)
    return FashionMNIST


def put(folder: Path, files: dict[str, bytes] = PACKED, suffix: str = ".gz") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, contents in files.items():
        (folder / f"{name}{suffix}").write_bytes(contents)
    return folder


def read(root: Path) -> FashionMNIST:
    datamodule = FashionMNIST(root=root, batch_size=2)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def check(datamodule: FashionMNIST) -> None:
    images = torch.frombuffer(bytearray(CONTENTS["train-images-idx3-ubyte"][16:]), dtype=torch.uint8)
    assert torch.equal(datamodule.train.images, images.reshape(6, 1, 28, 28))
    assert datamodule.test.labels.tolist() == list(CONTENTS["t10k-labels-idx1-ubyte"][8:])
    assert datamodule.test.images.shape == (3, 1, 28, 28)


@pytest.mark.parametrize("place", ["root", "root/FashionMNIST/raw", "system"])
def test_the_files_are_found_in_each_of_the_places(small: type[FashionMNIST], tmp_path: Path, place: str):
    put(tmp_path / place)
    check(read(tmp_path / "root"))


def test_unpacked_files_will_do(small: type[FashionMNIST], tmp_path: Path):
    check(read(put(tmp_path / "root", CONTENTS, suffix="")))


def test_files_packed_by_somebody_else_will_do(small: type[FashionMNIST], tmp_path: Path):
    repacked = {name: gzip.compress(contents, compresslevel=1, mtime=9) for name, contents in CONTENTS.items()}
    check(read(put(tmp_path / "system", repacked).parent / "root"))


def test_missing_files_are_downloaded(small: type[FashionMNIST], tmp_path: Path):
    put(tmp_path / "site")
    check(read(tmp_path / "root"))
    assert {path.name for path in (tmp_path / "root").glob("*.gz")} == {f"{name}.gz" for name in SHAPES}


def test_an_incomplete_folder_is_completed(small: type[FashionMNIST], tmp_path: Path):
    put(tmp_path / "site")
    put(tmp_path / "root", {name: PACKED[name] for name in list(PACKED)[:2]})
    check(read(tmp_path / "root"))


NAME = "train-images-idx3-ubyte"
WRONG = {
    "truncated archive": (PACKED[NAME][:-40], "train-images-idx3-ubyte.gz is truncated or no gzip file"),
    "no archive": (b"<html>Not found</html>", "is truncated or no gzip file"),
    "damaged archive": (PACKED[NAME][:300] + b"\0\0\0\0" + PACKED[NAME][304:], "is truncated or no gzip file"),
    "other format": (gzip.compress(b"\0\0\x0d\x03" + CONTENTS[NAME][4:]), "is no idx file of 3-dimensional bytes"),
    "nothing": (gzip.compress(b""), "is no idx file of 3-dimensional bytes"),
    "other sizes": (gzip.compress(idx((7, 28, 28), 0)), r"must hold an array of \(6, 28, 28\), got \(7, 28, 28\)"),
    "too short": (gzip.compress(CONTENTS[NAME][:-1]), "must hold 4704 elements, got 4703"),
    "too long": (gzip.compress(CONTENTS[NAME] + b"\0"), "must hold 4704 elements, got 4705"),
    "other images": (gzip.compress(idx((6, 28, 28), 99)), "holds other images than Fashion-MNIST"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_file_is_refused_in_a_sentence(small: type[FashionMNIST], tmp_path: Path, case: str):
    contents, sentence = WRONG[case]
    put(tmp_path / "root", {**PACKED, NAME: contents})
    with pytest.raises(DataError, match=sentence):
        read(tmp_path / "root")


def test_the_message_for_missing_files_names_all_places(small: type[FashionMNIST], tmp_path: Path):
    with pytest.raises(DataError, match=r"root, .*raw, .*system: install .*dataset-fashion-mnist.*train-images"):
        FashionMNIST(root=tmp_path / "root").setup()


@pytest.mark.slow
@pytest.mark.skipif(not FashionMNIST.system_folder.is_dir(), reason="dataset-fashion-mnist is not installed")
def test_the_real_dataset_is_read_from_the_package_of_debian(tmp_path: Path):
    datamodule = read(tmp_path / "nowhere")
    assert datamodule.train.images.shape == (60_000, 1, 28, 28) and len(datamodule.test) == 10_000
    assert datamodule.train.labels.bincount().tolist() == [6000] * 10
    assert datamodule.train.labels[:8].tolist() == [9, 0, 0, 3, 0, 2, 7, 2]
    assert not (tmp_path / "nowhere").exists()
