from __future__ import annotations

import errno
import json
import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from flowexp.data import DataError
from flowexp.data.storage.image_cache import ImageCache, Split
from flowexp.records.files.fingerprint import of_file

IMAGES = np.random.default_rng(0).integers(0, 256, (5, 3, 4, 4), np.uint8)
LABELS = np.arange(5)


def split(images: Iterator[np.ndarray] | np.ndarray = IMAGES) -> Split:
    return Split(IMAGES.shape, LABELS, images)


@pytest.fixture
def cache(tmp_path: Path) -> ImageCache:
    return ImageCache(tmp_path / "decoded", {"from": "here"})


def test_what_was_built_is_read_back(cache: ImageCache):
    cache.build({"train": split(), "test": split(IMAGES[::-1])})
    assert np.array_equal(cache.read("train").images.numpy(), IMAGES)
    assert np.array_equal(cache.read("test").images.numpy(), IMAGES[::-1])
    assert cache.read("train").labels.tolist() == [0, 1, 2, 3, 4]


def test_images_are_mapped_and_not_loaded(cache: ImageCache):
    cache.build({"train": split()})
    images = cache.read("train").images
    with (cache.folder / "train_images.npy").open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(bytes([int(IMAGES[-1, -1, -1, -1]) ^ 1]))
    assert images[-1, -1, -1, -1] == IMAGES[-1, -1, -1, -1] ^ 1


def test_writing_to_mapped_images_stays_in_memory(cache: ImageCache):
    cache.build({"train": split()})
    cache.read("train").images.zero_()
    assert np.array_equal(cache.read("train").images.numpy(), IMAGES)


def test_a_second_build_finds_the_first(cache: ImageCache):
    cache.build({"train": split()})
    cache.build({"train": split(iter(()))})
    assert len(cache.read("train")) == 5


@pytest.mark.parametrize("failure", [KeyboardInterrupt, DataError])
def test_a_build_that_breaks_off_leaves_no_cache(cache: ImageCache, failure: type[BaseException]):
    def breaks_off() -> Iterator[np.ndarray]:
        yield IMAGES[0]
        assert not cache.exists(), "a half-filled cache must not have its name"
        raise failure("in the middle")

    with pytest.raises(failure):
        cache.build({"train": split(breaks_off())})
    assert {path.suffix for path in cache.folder.parent.iterdir()} == {".lock"}


def test_what_a_killed_build_left_is_thrown_away(cache: ImageCache):
    process = subprocess.Popen(["true"])
    process.wait()  # its number is nobody's now
    partial = cache.folder.with_name(f".{cache.folder.name}.{platform.node()}.{process.pid}.0123abcd.partial")
    partial.mkdir()
    (partial / "train_images.npy").write_bytes(b"half")
    (partial / "stray").write_bytes(b"")
    cache.build({"train": split()})
    assert len(cache.read("train")) == 5 and not (cache.folder / "stray").exists() and not partial.exists()


def test_a_full_disk_is_a_sentence_and_leaves_nothing(cache: ImageCache):
    def full() -> Iterator[np.ndarray]:
        raise OSError(errno.ENOSPC, "No space left on device")
        yield

    with pytest.raises(DataError, match=r"could not be written .*No space left on device.*make room there"):
        cache.build({"train": split(full())})
    assert {path.suffix for path in cache.folder.parent.iterdir()} == {".lock"}


def test_a_cache_of_other_images_is_refused(cache: ImageCache):
    cache.build({"train": split()})
    with pytest.raises(DataError, match="made from other images: delete it"):
        ImageCache(cache.folder, {"from": "elsewhere"}).read("train")


def test_where_the_images_are_gone_any_cache_will_do(cache: ImageCache):
    cache.build({"train": split()})
    assert len(ImageCache(cache.folder, None).read("train")) == 5


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy"])
def test_a_truncated_or_missing_file_is_refused(cache: ImageCache, name: str):
    cache.build({"train": split()})
    path = cache.folder / name
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"decoded is damaged .*{name}.*delete it"):
        cache.read("train")
    path.unlink()
    with pytest.raises(DataError, match=rf"decoded is damaged .*{name}.*delete it"):
        cache.read("train")


@pytest.mark.parametrize("manifest", ["", "{", "[]", json.dumps({"origin": {}})])
def test_a_folder_without_a_manifest_is_no_cache(cache: ImageCache, manifest: str):
    cache.folder.mkdir()
    (cache.folder / "manifest.json").write_text(manifest)
    with pytest.raises(DataError, match="decoded is damaged"):
        cache.read("train")


@pytest.mark.parametrize("name", ["train_images.npy", "train_labels.npy"])
def test_a_flipped_bit_is_noticed_when_the_cache_is_opened(cache: ImageCache, name: str):
    cache.build({"train": split()})
    path = cache.folder / name
    content = bytearray(path.read_bytes())
    for place in (20, 100, len(content) - 1):  # in the header and in the array
        content[place] ^= 4
        path.write_bytes(content)
        with pytest.raises(DataError, match=rf"decoded is damaged .*{name}.*delete it"):
            cache.read("train")
        content[place] ^= 4
    path.write_bytes(content)
    assert np.array_equal(cache.read("train").images.numpy(), IMAGES)


def test_files_are_read_through_again_only_where_one_was_touched(cache: ImageCache, monkeypatch: pytest.MonkeyPatch):
    read: list[str] = []

    def counted(path: Path) -> str:
        read.append(path.name)
        return of_file(path)

    monkeypatch.setattr("flowexp.data.storage.image_cache.fingerprint.of_file", counted)
    cache.build({"train": split()})
    cache.read("train")
    assert read == []  # they were just written
    shutil.copytree(cache.folder, cache.folder.with_name("copy"))
    copy = ImageCache(cache.folder.with_name("copy"), cache.origin)
    for _ in range(2):
        copy.read("train")
    assert sorted(read) == ["train_images.npy", "train_labels.npy"]


def test_two_builders_at_once_leave_one_whole_cache(cache: ImageCache):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: cache.build({"train": split(), "test": split()}), range(2)))
    assert np.array_equal(cache.read("train").images.numpy(), IMAGES)
    assert {path.name for path in cache.folder.parent.iterdir()} == {"decoded", "decoded.lock"}


def test_the_cache_of_an_earlier_version_is_read_by_its_sizes(cache: ImageCache):
    cache.build({"train": split()})
    manifest = json.loads((cache.folder / "manifest.json").read_text())
    del manifest["digests"]
    (cache.folder / "manifest.json").write_text(json.dumps(manifest))
    (cache.folder / "checked.json").unlink()
    assert np.array_equal(cache.read("train").images.numpy(), IMAGES)
    (cache.folder / "train_labels.npy").write_bytes(bytes(manifest["bytes"]["train_labels.npy"]))
    with pytest.raises(DataError, match="decoded is damaged"):
        cache.read("train")
