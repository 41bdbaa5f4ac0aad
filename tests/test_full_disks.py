"""On a full disk, or where nothing may be written, numbers come all the same and what stood there stays whole."""

from __future__ import annotations

import errno
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from flowexp import report
from flowexp.cli.errors import sentence_for
from flowexp.data import DataError, LatentCache, Manifest
from flowexp.data.storage.image_cache import ImageCache, NoRoomError, Split
from flowexp.measuring.callbacks.resumable import Kept
from flowexp.measuring.metrics import FeatureStore, Moments, ReferenceCache, Statistics, write_adm_batch
from flowexp.records.figures import save_figure, save_image
from flowexp.records.files import atomic
from flowexp.records.files.npy import write_npy_atomically
from flowexp.records.tables import write_csv

ROOM = 64 * 1024  # bytes of the small disk


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 64 kB, where this system lets one be made."""
    place = tmp_path / "disk"
    place.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={ROOM}", "tmpfs", place], capture_output=True)
    if made.returncode:
        pytest.skip("only root may mount a small disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def left_on(disk: Path) -> set[str]:
    return {str(path.relative_to(disk)) for path in disk.rglob("*")}


def moments(dim: int) -> Moments:
    return Moments(torch.randn(dim, dtype=torch.float64), torch.randn(dim, dim, dtype=torch.float64), 7)


# --- what can be done without --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["moments", "features"])
def test_a_full_cache_of_a_reference_costs_a_warning_and_leaves_nothing(disk: Path, kind: str):
    parts = {"moments": Statistics({"features": moments(200)}), "features": Statistics(features=torch.randn(500, 64))}
    with pytest.warns(UserWarning, match=r"disk/c cannot be written \(no space left on device\): the statistics"):
        ReferenceCache(disk / "c").save_statistics({"a": 1}, parts[kind])
    assert left_on(disk) <= {"c"}


def in_the_way(tmp_path: Path) -> Path:
    (tmp_path / "data").write_text("a file")
    return tmp_path / "data"


def below_a_file(tmp_path: Path) -> Path:
    return in_the_way(tmp_path) / "moments"


def below_a_device(tmp_path: Path) -> Path:
    return Path("/dev/null/x")


@pytest.mark.parametrize("place", [in_the_way, below_a_file, below_a_device])
def test_a_cache_that_cannot_be_made_counts_as_empty_and_costs_a_warning(tmp_path: Path, place: Callable[[Path], Path]):
    cache = ReferenceCache(place(tmp_path))
    assert cache.load({"a": 1}) is None and cache.load_features({"a": 1}) is None
    for statistics in (Statistics({"features": moments(3)}), Statistics(features=torch.randn(5, 3))):
        with pytest.warns(UserWarning, match=f"{cache.folder} cannot be written "):
            cache.save_statistics({"a": 1}, statistics)


def test_parts_of_a_measurement_that_cannot_be_kept_are_used(disk: Path, tmp_path: Path):
    rows = torch.randn(500, 64)
    for folder in (disk / "kept", below_a_file(tmp_path)):
        kept = Kept(folder, {})
        with pytest.warns(UserWarning, match="cannot be written .*: the measurement goes on, and begins anew"):
            assert torch.equal(kept.features({}, lambda: rows), rows)
        with pytest.warns(UserWarning, match="cannot be written"):
            assert len(kept.numbers({}, lambda: {"a": "b" * ROOM})["a"]) == ROOM
    assert left_on(disk) <= {"kept"}


def test_many_features_stay_in_memory_where_the_disk_has_no_room_for_them(disk: Path):
    features = torch.randn(500, 64)
    with pytest.warns(UserWarning, match=r"disk cannot be written \(no space left on device\): 0\.0 GB of feat"):
        store = FeatureStore(500, 64, disk, in_memory=1000)
    store.update(features, torch.arange(500))
    assert torch.equal(store.gather(), features) and not left_on(disk)


def test_features_that_have_room_take_it_at_once(disk: Path):
    store = FeatureStore(100, 64, disk, in_memory=1000)
    with pytest.raises(OSError, match="No space left"):
        (disk / "other").write_bytes(bytes(ROOM - 100 * 64 * 4 + 1))
    store.update(torch.ones(100, 64), torch.arange(100))  # would end the process, had the room gone to the other file
    assert store.gather().sum() == 6400


def test_decoded_images_without_room_are_told_from_damaged_ones(disk: Path):
    images = np.zeros((100, 3, 32, 32), np.uint8)
    cache = ImageCache(disk / "decoded", {})
    with pytest.raises(NoRoomError, match=r"could not be written to .*disk/decoded \(.*No space left.*make room there"):
        cache.build({"train": Split(images.shape, np.arange(100), images)})
    assert left_on(disk) == {"decoded.lock"}


def test_latents_without_room_are_a_sentence_and_the_shards_before_stay(disk: Path):
    parts: dict[str, Any] = {"dataset": "a", "resolution": 16, "num_images": {"train": 40, "test": 1}, "images": {}}
    made_by = {"vae": "b", "vae_weights": "c", "scale": 1.0, "shape": [4, 8, 8]}
    cache = LatentCache(disk / "latents")
    cache.begin(Manifest(**parts, **made_by, flips=2, shard_size=20), {})
    first, second = list(cache.shards("train"))
    rows = np.ones((20, 2, 2, 4, 8, 8), np.float16)  # 41 kB
    cache.write(first, [rows])
    with pytest.raises(DataError, match=r"train/00001\.npy could not be written .*No space left.*: make room, and run"):
        cache.write(second, [rows])
    assert cache.has(first) and not cache.has(second) and not list(disk.rglob("*.partial"))


# --- what stood there ----------------------------------------------------------------------------------------------


def adm(path: Path) -> None:
    write_adm_batch(path.with_suffix(".npz"), torch.randint(0, 256, (100, 3, 32, 32), dtype=torch.uint8))


def page(path: Path) -> None:
    report._write(path, "<p>" * ROOM)


def figure(path: Path) -> None:
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(4, 4), dpi=200)
    drawn.subplots().imshow(np.random.default_rng(0).random((500, 500)))
    save_figure(drawn, path.with_suffix(".png"))


WRITERS = {
    "table": (".csv", lambda path: write_csv(path, [{"a": "b" * ROOM}])),
    "picture": (".png", lambda path: save_image(torch.randint(0, 256, (300, 300, 3), dtype=torch.uint8), path)),
    "figure": (".png", figure),
    "page": (".html", page),
    "json": (".json", lambda path: atomic.write_json(path, "b" * ROOM)),
    "array": (".npy", lambda path: write_npy_atomically(path, (ROOM,), np.uint8, [np.zeros(ROOM, np.uint8)])),
    "samples": (".npz", adm),
}


@pytest.mark.parametrize("writer", WRITERS)
def test_a_full_disk_is_a_sentence_with_the_name_and_leaves_what_stood_there(disk: Path, writer: str):
    ending, write = WRITERS[writer]
    path = disk / f"file{ending}"
    path.write_text("as it was")
    with pytest.raises(OSError) as caught:
        write(path)
    assert sentence_for(caught.value, "report") == f"cannot read or write {path}: no space left on device"
    assert path.read_text() == "as it was" and left_on(disk) == {path.name}


def test_an_error_that_is_not_of_the_disk_keeps_its_words(tmp_path: Path):
    for error in (OSError("got 3 bytes"), ConnectionResetError(errno.ECONNRESET, "reset"), ValueError("x")):
        with pytest.raises(type(error)) as caught, atomic.replacing(tmp_path / "file"):
            raise error
        assert caught.value is error and getattr(error, "filename", None) is None


def test_what_dead_writers_left_is_removed_and_what_living_ones_write_stays(tmp_path: Path):
    dead = subprocess.Popen(["true"])
    dead.wait()
    path, node = tmp_path / "cache", os.uname().nodename
    names = {number: f".cache.{node}.{number}.0123abcd.partial" for number in (dead.pid, os.getpid(), 1)}
    for name in names.values():
        (tmp_path / name).mkdir()
    (tmp_path / f".cache.elsewhere.{dead.pid}.0123abcd.partial").touch()
    (tmp_path / f".cache2.{node}.{dead.pid}.0123abcd.partial").touch()
    atomic.remove_leftovers(path)
    assert len(left_on(tmp_path)) == 4 and names[dead.pid] not in left_on(tmp_path)
