from __future__ import annotations

import shutil
from itertools import chain, islice, repeat
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data import BatchLoader, DataError, ImageNet, ImageSet
from flowexp.data.sets.crop import centre_crop


def read(root: Path, **options: Any) -> ImageNet:
    datamodule = ImageNet(**{"root": root, "resolution": 16, "batch_size": 4, "num_workers": 2, **options})
    datamodule.setup()
    return datamodule


def decoded(datamodule: ImageNet) -> ImageSet:
    return ImageSet(datamodule.train.images, datamodule.train.labels)


@pytest.mark.slow
def test_classes_are_the_sorted_wordnet_ids_and_pixels_those_of_adm(imagenet: Path):
    datamodule = read(imagenet)
    assert datamodule.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert datamodule.test.labels.tolist() == [0, 0, 1, 1, 2, 2]
    wnid = "n01443537"
    expected = centre_crop(Image.open(imagenet / f"train/{wnid}/{wnid}_2.JPEG"), 16)
    assert np.array_equal(datamodule.train.images[6].permute(1, 2, 0).numpy(), expected)


@pytest.mark.parametrize("world_size", [1, 2])
def test_batches_decoded_on_demand_are_those_of_the_images_in_memory(imagenet: Path, world_size: int):
    lazy, options = read(imagenet), {"seed": 3, "flip": True, "world_size": world_size}
    for rank in range(world_size):
        here = BatchLoader(lazy.train, 4, rank=rank, **options)
        there = BatchLoader(decoded(lazy), 4, rank=rank, **options)
        for one, other in islice(zip(chain.from_iterable(repeat(here)), chain.from_iterable(repeat(there))), 7):  # noqa: B905
            assert torch.equal(one["image"], other["image"]) and torch.equal(one["label"], other["label"])


@pytest.mark.slow
def test_a_loader_that_decodes_ahead_resumes_at_the_batch_after_the_last_one_served(imagenet: Path):
    first = BatchLoader(read(imagenet).train, 4, seed=1)
    seen = iter(first)
    next(seen)
    assert first.state_dict()["step"] == 1  # two more are being decoded
    second = BatchLoader(read(imagenet).train, 4, seed=1)
    second.load_state_dict(first.state_dict())
    assert torch.equal(next(iter(second))["image"], next(seen)["image"])


@pytest.mark.slow
def test_train_size_decodes_nothing_and_takes_the_same_subset_as_in_memory(imagenet: Path):
    whole, part = read(imagenet), read(imagenet, train_size=5)
    assert torch.equal(part.train.images, decoded(whole).subset(5).images)


@pytest.mark.slow
def test_the_fingerprint_tells_files_and_resolutions_apart(imagenet: Path):
    found = {read(imagenet).train.fingerprint, read(imagenet, resolution=8).train.fingerprint}
    found |= {read(imagenet).test.fingerprint, read(imagenet, train_size=5).train.fingerprint}
    assert len(found) == 4 and read(imagenet).train.fingerprint in found


@pytest.mark.slow
def test_the_cache_says_its_size_first_and_holds_the_same_images(imagenet: Path, capsys: pytest.CaptureFixture[str]):
    plain, cached = read(imagenet), read(imagenet, cache=True)
    assert "decoding ImageNet once" in capsys.readouterr().out
    assert torch.equal(plain.train.images, cached.train.images)
    assert torch.equal(read(imagenet, cache=True).test.images, plain.test.images)
    assert capsys.readouterr().out == ""


@pytest.mark.slow
def test_without_a_place_for_decoded_images_batches_are_decoded_as_they_come(imagenet: Path):
    (imagenet / "decoded_16.lock").mkdir()  # in the way of the lock
    with pytest.warns(UserWarning, match=r"could not be written to .*decoded_16 .*until then every batch is decoded"):
        found = read(imagenet, cache=True)
    assert torch.equal(found.train.images, read(imagenet).train.images)
    with pytest.raises(DataError, match="could not be written"):
        read(imagenet, cache=True, on_device=True)


@pytest.mark.slow
def test_a_cache_of_other_files_is_refused(imagenet: Path):
    read(imagenet, cache=True)
    next(imagenet.glob("train/*/*.JPEG")).unlink()
    with pytest.raises(DataError, match="decoded_16 was made from other images: delete it"):
        read(imagenet, cache=True)


@pytest.mark.slow
def test_too_many_images_for_the_memory_are_refused(imagenet: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("flowexp.data.sets.file_images._MOST_GIGABYTES", 1e-6)
    with pytest.raises(DataError, match=r"12 decoded images take .* measure on a subset"):
        _ = read(imagenet).train.images


def test_images_on_the_device_need_the_cache():
    with pytest.raises(ValueError, match=r"needs decoded images: set data\.cache=true"):
        ImageNet(on_device=True)


def flatten(root: Path) -> None:
    for path in list(root.glob("val/*/*.JPEG")):
        path.rename(root / "val" / path.name)
    for path in root.glob("val/n*"):
        path.rmdir()


def drop(pattern: str) -> Any:
    return lambda root: [shutil.rmtree(path) for path in root.glob(pattern)]


FAULTS = {
    "nothing": (drop("*"), r"ImageNet not found in .*imagenet.*data=digits"),
    "no val": (drop("val"), r"looked for val"),
    "flat val": (flatten, r"val is flat, without its classes: move each image into the folder of its class"),
    "a class less": (drop("train/n01443537"), r"must have 3 class folders such as n01440764.*got 2"),
    "other classes": (
        lambda root: (root / "val/n01440764").rename(root / "val/n00000001"),
        "the same class folders in train and val",
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_an_incomplete_tree_is_a_sentence(imagenet: Path, fault: str):
    spoil, sentence = FAULTS[fault]
    spoil(imagenet)
    with pytest.raises(DataError, match=sentence):
        read(imagenet)


@pytest.mark.slow
def test_a_damaged_image_is_named_when_its_batch_comes(imagenet: Path):
    next(imagenet.glob("train/*/n01440764_0.JPEG")).write_bytes(b"")
    with pytest.raises(DataError, match=r"n01440764_0\.JPEG is missing or damaged"):
        list(BatchLoader(read(imagenet).train, 4))
