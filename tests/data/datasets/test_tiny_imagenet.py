from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data import DataError, TinyImageNet

WNIDS = ["n02", "n10", "n01"]  # not sorted in the file, as in the original
GREY = "train/n10/images/n10_1.JPEG"
VAL = ["n10", "n01", "n02", "n01"]


def jpeg(level: int, mode: str = "RGB", size: int = 64) -> bytes:
    """A flat picture; the level says which one it is."""
    buffer = io.BytesIO()
    Image.new(mode, (size, size), level if mode == "L" else (level, level // 2, 0)).save(buffer, "JPEG", quality=95)
    return buffer.getvalue()


def tree() -> dict[str, bytes]:
    files = {"wnids.txt": "".join(f"{wnid}\n" for wnid in WNIDS).encode()}
    level = 10
    for wnid in WNIDS:
        for number in range(2):
            name = f"train/{wnid}/images/{wnid}_{number}.JPEG"
            files[name] = jpeg(level, "L" if name == GREY else "RGB")
            level += 20
    for number in range(4):
        files[f"val/images/val_{number}.JPEG"] = jpeg(150 + 20 * number)
    lines = [f"val_{number}.JPEG\t{wnid}\t0\t0\t63\t63\n" for number, wnid in enumerate(VAL)]
    return {**files, "val/val_annotations.txt": "".join(lines).encode(), "test/images/test_0.JPEG": jpeg(0)}


FILES = tree()


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, contents in files.items():
            archive.writestr(name, contents)
    return buffer.getvalue()


def archive_of(files: dict[str, bytes]) -> bytes:
    return zipped({f"tiny-imagenet-200/{name}": contents for name, contents in files.items()})


ARCHIVE = archive_of(FILES)


def expect_archive(monkeypatch: pytest.MonkeyPatch, contents: bytes) -> None:
    monkeypatch.setattr(TinyImageNet, "archive_md5", hashlib.md5(contents).hexdigest())


@pytest.fixture(autouse=True)
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three classes of two images, four held out, and no network."""
    expect_archive(monkeypatch, ARCHIVE)
    monkeypatch.setattr(TinyImageNet, "num_classes", 3)
    monkeypatch.setattr(TinyImageNet, "images_per_class", 2)
    monkeypatch.setattr(TinyImageNet, "num_test", 4)
    monkeypatch.setattr(TinyImageNet, "url", (tmp_path / "site.zip").as_uri())


def put_folder(root: Path, files: dict[str, bytes] = FILES) -> Path:
    for name, contents in files.items():
        path = root / "tiny-imagenet-200" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(contents)
    return root / "tiny-imagenet-200"


def put_archive(root: Path, contents: bytes = ARCHIVE) -> Path:
    root.mkdir(exist_ok=True)
    (root / "tiny-imagenet-200.zip").write_bytes(contents)
    return root / "tiny-imagenet-200.zip"


def read(root: Path) -> TinyImageNet:
    datamodule = TinyImageNet(root=root, batch_size=2)
    datamodule.prepare_data()
    datamodule.setup()
    return datamodule


def levels(images: torch.Tensor) -> list[int]:
    """Which pictures these are, by their red channel."""
    return [10 * round(int(image[0].float().mean()) / 10) for image in images]


def check(datamodule: TinyImageNet) -> None:
    assert datamodule.train.images.shape == (6, 3, 64, 64) and datamodule.test.images.shape == (4, 3, 64, 64)
    assert datamodule.train.labels.tolist() == [0, 0, 1, 1, 2, 2]  # n01, n02, n10
    assert levels(datamodule.train.images) == [90, 110, 10, 30, 50, 70]
    assert datamodule.test.labels.tolist() == [2, 0, 1, 0]
    assert levels(datamodule.test.images) == [150, 170, 190, 210]


@pytest.mark.parametrize("put", [put_folder, put_archive])
def test_the_folder_and_the_archive_are_read_where_they_are(tmp_path: Path, put: object):
    place = put(tmp_path)  # type: ignore[operator]
    check(read(tmp_path))
    assert {path.name for path in tmp_path.iterdir() if path.suffix != ".lock"} == {place.name, "decoded"}


def test_the_root_may_be_the_folder_itself(tmp_path: Path):
    check(read(put_folder(tmp_path)))


def test_a_missing_archive_is_downloaded(tmp_path: Path):
    (tmp_path / "site.zip").write_bytes(ARCHIVE)
    check(read(tmp_path / "root"))


def test_the_pixels_are_those_of_the_jpeg_channel_by_channel(tmp_path: Path):
    put_folder(tmp_path)
    expected = np.asarray(Image.open(io.BytesIO(FILES["val/images/val_2.JPEG"])))
    assert np.array_equal(read(tmp_path).test.images[2].permute(1, 2, 0).numpy(), expected)


def test_a_grey_jpeg_becomes_three_equal_channels(tmp_path: Path):
    put_folder(tmp_path)
    grey = read(tmp_path).train.images[5]
    assert torch.equal(grey[0], grey[1]) and torch.equal(grey[0], grey[2])


def test_the_images_are_decoded_once_and_then_mapped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    put_archive(tmp_path)
    read(tmp_path)
    monkeypatch.setattr("flowexp.data.datasets.tiny_imagenet._decode_image", None)
    check(read(tmp_path))


def test_other_pictures_under_the_same_names_are_not_taken_for_those_that_were_decoded(tmp_path: Path):
    put_folder(tmp_path)
    read(tmp_path)
    put_folder(tmp_path, FILES | {"train/n01/images/n01_0.JPEG": jpeg(200)})
    with pytest.raises(DataError, match="decoded was made from other images: delete it"):
        read(tmp_path)


def test_unpacking_the_archive_makes_no_other_dataset(tmp_path: Path):
    put_archive(tmp_path)
    read(tmp_path)
    put_folder(tmp_path)
    check(read(tmp_path))


def test_without_a_place_for_them_the_images_are_decoded_into_memory_with_a_warning(tmp_path: Path):
    put_archive(tmp_path)
    (tmp_path / "decoded.lock").mkdir()  # in the way of the lock
    with pytest.warns(UserWarning, match=r"could not be written to .*decoded .*every start decodes them anew"):
        check(read(tmp_path))
    assert not (tmp_path / "decoded").exists()


def test_the_originals_may_go_once_they_are_decoded(tmp_path: Path):
    place = put_archive(tmp_path)
    read(tmp_path)
    place.unlink()
    check(read(tmp_path))


def test_decoded_images_of_another_dataset_are_refused(tmp_path: Path):
    put_folder(tmp_path)
    read(tmp_path)
    put_folder(tmp_path, {**FILES, "val/val_annotations.txt": FILES["val/val_annotations.txt"].replace(b"n01", b"n02")})
    with pytest.raises(DataError, match="decoded was made from other images: delete it"):
        read(tmp_path)


@pytest.mark.parametrize("cut", [ARCHIVE[:-100], b"", b"<html>busy</html>"], ids=["truncated", "empty", "page"])
def test_a_damaged_archive_is_refused_and_leaves_nothing(tmp_path: Path, cut: bytes):
    put_archive(tmp_path, cut)
    with pytest.raises(DataError, match=r"tiny-imagenet-200\.zip is (truncated|damaged)"):
        read(tmp_path)
    assert not (tmp_path / "decoded").exists()


def test_another_archive_is_refused(tmp_path: Path):
    put_archive(tmp_path, archive_of({**FILES, GREY: jpeg(1)}))
    with pytest.raises(DataError, match="is damaged or not the file expected"):
        read(tmp_path)


def test_an_archive_without_the_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    other = zipped(FILES)
    expect_archive(monkeypatch, other)
    put_archive(tmp_path, other)
    with pytest.raises(DataError, match=r"lacks a sound tiny-imagenet-200/wnids\.txt: replace it"):
        read(tmp_path)


def test_no_member_of_an_archive_lands_anywhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    names = {f"tiny-imagenet-200/{name}": contents for name, contents in FILES.items()}
    evil = zipped({"../escaped": b"1", str(tmp_path / "escaped"): b"2", **names})
    expect_archive(monkeypatch, evil)
    put_archive(tmp_path / "root", evil)
    check(read(tmp_path / "root"))
    assert not list(tmp_path.rglob("escaped"))


LAST = "val/images/val_3.JPEG"
FAULTS = {
    "missing image": (LAST, None, "lacks val/images/val_3.JPEG"),
    "missing class": ("wnids.txt", b"n01\nn02\n", "must list 3 classes, got 2"),
    "missing label": (
        "val/val_annotations.txt",
        b"val_0.JPEG\tn01\n",
        "must give each of 4 images a class .* got 1 line",
    ),
    "unknown label": (
        "val/val_annotations.txt",
        FILES["val/val_annotations.txt"].replace(b"n02", b"n99"),
        "must give each of 4 images a class of wnids.txt",
    ),
    "no labels": ("val/val_annotations.txt", None, "lacks val/val_annotations.txt"),
    "truncated image": (LAST, FILES[LAST][:-200], "val_3.JPEG of Tiny-ImageNet is damaged"),
    "no image": (LAST, b"text", "val_3.JPEG of Tiny-ImageNet is damaged"),
    "large image": (LAST, jpeg(3, size=80), r"val_3.JPEG of Tiny-ImageNet must be 64 x 64, got \(80, 80\)"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_folder_is_a_sentence_and_leaves_no_cache(tmp_path: Path, fault: str):
    name, contents, sentence = FAULTS[fault]
    changed = {key: value for key, value in FILES.items() if key != name}
    put_folder(tmp_path, changed if contents is None else {**changed, name: contents})
    with pytest.raises(DataError, match=sentence):
        read(tmp_path)
    assert {path.name for path in tmp_path.glob("decoded*")} <= {"decoded.lock"}
