from __future__ import annotations

import hashlib
import io
import os
import pickle
import struct
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.data import CIFAR10, DataError

ROWS = 3
NAMES = [*CIFAR10.train_md5, *CIFAR10.test_md5]


def text(string: str) -> bytes:
    return b"U" + bytes([len(string)]) + string.encode()


def integer(number: int) -> bytes:
    return b"J" + struct.pack("<i", number)


def old_pickle(pixels: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 and numpy wrote it in 2009: protocol 2, byte strings, numpy.core.multiarray."""
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n"
        + (integer(0) + b"\x85" + text("b") + b"tR(")
        + (integer(1) + b"".join(map(integer, pixels.shape)) + b"\x86")
        + (b"cnumpy\ndtype\n(" + text("u1") + integer(0) + integer(1) + b"tR")
        + (b"(" + integer(3) + text("|") + b"NNN" + integer(-1) + integer(-1) + integer(0) + b"tb\x89")
        + (b"T" + struct.pack("<i", pixels.size) + pixels.tobytes() + b"tb")
    )
    listed = b"](" + b"".join(map(integer, labels)) + b"e"
    return b"\x80\x02}(" + text("data") + array + text("labels") + listed + text("batch_label") + text("1 of 5") + b"u."


def batch(seed: int) -> tuple[np.ndarray, list[int]]:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (ROWS, 3072), np.uint8), rng.integers(0, 10, ROWS).tolist()


FILES = {name: old_pickle(*batch(seed)) for seed, name in enumerate(NAMES)}


def tarred(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, contents in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(contents)
            archive.addfile(member, io.BytesIO(contents))
    return buffer.getvalue()


ARCHIVE = tarred({f"cifar-10-batches-py/{name}": contents for name, contents in FILES.items()})


def expect(monkeypatch: pytest.MonkeyPatch, files: dict[str, bytes] = FILES, archive: bytes = ARCHIVE) -> None:
    md5s = {name: hashlib.md5(contents).hexdigest() for name, contents in files.items()}
    monkeypatch.setattr(CIFAR10, "batch_rows", ROWS)
    monkeypatch.setattr(CIFAR10, "train_md5", {name: md5s[name] for name in CIFAR10.train_md5})
    monkeypatch.setattr(CIFAR10, "test_md5", {name: md5s[name] for name in CIFAR10.test_md5})
    monkeypatch.setattr(CIFAR10, "archive_md5", hashlib.md5(archive).hexdigest())


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Batches of three images, and no network."""
    expect(monkeypatch)
    monkeypatch.setattr(CIFAR10, "url", (tmp_path / "site.tar.gz").as_uri())


def put_folder(root: Path, files: dict[str, bytes] = FILES) -> Path:
    folder = root / "cifar-10-batches-py"
    folder.mkdir(parents=True)
    for name, contents in files.items():
        (folder / name).write_bytes(contents)
    return folder


def put_archive(root: Path, contents: bytes = ARCHIVE) -> Path:
    root.mkdir(exist_ok=True)
    (root / "cifar-10-python.tar.gz").write_bytes(contents)
    return root / "cifar-10-python.tar.gz"


def read(root: Path) -> CIFAR10:
    datamodule = CIFAR10(root=root, batch_size=5)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def check(datamodule: CIFAR10) -> None:
    batches = [batch(seed) for seed in range(6)]
    pixels = np.stack([pixels for pixels, _ in batches]).reshape(18, 3, 32, 32)
    assert torch.equal(datamodule.train.images, torch.from_numpy(pixels[:15]))
    assert torch.equal(datamodule.test.images, torch.from_numpy(pixels[15:]))
    assert datamodule.train.labels.tolist() == [label for _, labels in batches[:5] for label in labels]
    assert datamodule.test.labels.tolist() == batches[5][1]


@pytest.mark.parametrize("put", [put_folder, put_archive])
@pytest.mark.parametrize("itself", [False, True], ids=["beside", "itself"])
def test_the_folder_and_the_archive_are_read_where_they_are(tmp_path: Path, put: object, itself: bool):
    place = put(tmp_path)  # type: ignore[operator]
    check(read(place if itself else tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {place.name}


def test_a_missing_archive_is_downloaded(tmp_path: Path):
    (tmp_path / "site.tar.gz").write_bytes(ARCHIVE)
    check(read(tmp_path / "root"))


def test_images_are_stored_channel_by_channel_and_row_by_row(tmp_path: Path):
    put_folder(tmp_path)
    red = batch(0)[0][0, : 32 * 32].reshape(32, 32)
    assert np.array_equal(read(tmp_path).train.images[0, 0].numpy(), red)


@pytest.mark.parametrize("cut", [ARCHIVE[:-100], ARCHIVE + b"\0", b""], ids=["truncated", "too long", "empty"])
def test_a_damaged_archive_is_refused(tmp_path: Path, cut: bytes):
    put_archive(tmp_path, cut)
    with pytest.raises(DataError, match=r"cifar-10-python.tar.gz is damaged or not the file expected .* delete it"):
        read(tmp_path)


def test_a_damaged_batch_is_refused(tmp_path: Path):
    put_folder(tmp_path, {**FILES, "data_batch_3": FILES["data_batch_3"][:-1]})
    with pytest.raises(DataError, match="data_batch_3 is damaged"):
        read(tmp_path)


def test_an_incomplete_folder_is_refused(tmp_path: Path):
    put_folder(tmp_path, {name: FILES[name] for name in NAMES if name not in ("data_batch_2", "data_batch_4")})
    with pytest.raises(DataError, match="cifar-10-batches-py lacks data_batch_2, data_batch_4: put cifar-10-python"):
        read(tmp_path)


def test_an_archive_without_the_batches_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = tarred({"data_batch_1": FILES["data_batch_1"]})
    expect(monkeypatch, archive=other)
    put_archive(tmp_path, other)
    with pytest.raises(DataError, match=r"tar\.gz lacks data_batch_1"):
        read(tmp_path)


def test_no_member_of_an_archive_lands_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {f"cifar-10-batches-py/{name}": contents for name, contents in FILES.items()}
    evil = tarred({"../escaped": b"1", str(tmp_path / "escaped"): b"2", **names})
    expect(monkeypatch, archive=evil)
    put_archive(tmp_path / "root", evil)
    check(read(tmp_path / "root"))
    assert not list(tmp_path.rglob("escaped"))


class Malice:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, ("ran",)


# Even with the right checksum, a pickle may ask for nothing but arrays.
@pytest.mark.parametrize(
    "contents",
    [
        pickle.dumps({b"data": Malice(), b"labels": []}, protocol=2),
        b"cbuiltins\neval\n(X\x10\x00\x00\x00__import__('os')tR.",
        b"cnumpy\nload\n.",
    ],
    ids=["mkdir", "eval", "numpy.load"],
)
def test_a_malicious_pickle_is_refused_and_not_run(
    tmp_path: Path, workdir: Path, monkeypatch: pytest.MonkeyPatch, contents: bytes
):
    files = {**FILES, "data_batch_1": contents}
    expect(monkeypatch, files)
    put_folder(tmp_path / "root", files)
    with pytest.raises(DataError, match=r"data_batch_1 is no batch of CIFAR-10 \(it asks for"):
        read(tmp_path / "root")
    assert not (workdir / "ran").exists()


@pytest.mark.parametrize(
    "contents",
    [
        old_pickle(batch(0)[0][:2], batch(0)[1]),
        old_pickle(batch(0)[0][:, :3000], batch(0)[1]),
        old_pickle(batch(0)[0], batch(0)[1][:2]),
        pickle.dumps({b"data": batch(0)[0].astype(np.float32), b"labels": batch(0)[1]}, protocol=2),
        pickle.dumps([1, 2]),
        b"junk",
    ],
    ids=["rows", "columns", "labels", "floats", "list", "junk"],
)
def test_a_pickle_of_something_else_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, contents: bytes):
    files = {**FILES, "data_batch_1": contents}
    expect(monkeypatch, files)
    put_folder(tmp_path, files)
    with pytest.raises(DataError, match="data_batch_1"):
        read(tmp_path)
