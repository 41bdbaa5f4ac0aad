"""Sets of pictures are told apart by what they show, wherever they lie and however long."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from flowexp.data import COCO, DataError, ImageNet, LatentCache, Latents
from flowexp.data.sets.identity import identity_of, identity_of_files
from flowexp.data.sets.resized import fitted
from flowexp.data.storage.file_tree import Folder, Zip
from flowexp.encode import _small_arrays, describe, encode
from flowexp.integrations.encoders.base import FeatureNet
from flowexp.measuring.callbacks.reference_set import ReferenceSet
from flowexp.measuring.metrics import MetricPlan, ReferenceCache


def read(root: Path, **options: Any) -> ImageNet:
    datamodule = ImageNet(**{"root": root, "resolution": 16, "batch_size": 4, "num_workers": 2, **options})
    datamodule.setup()
    return datamodule


def copy_of(root: Path, name: str = "copy") -> Path:
    """The same files elsewhere, older by a day."""
    copy = shutil.copytree(root, root.with_name(name))
    for path in copy.rglob("*.*"):
        os.utime(path, (path.stat().st_mtime - 86400,) * 2)
    return copy


def invert(path: Path) -> None:
    """The negative under the same name."""
    pixels = 255 - np.asarray(Image.open(path).convert("RGB"))
    Image.fromarray(pixels).save(path, "JPEG", quality=95)


def swap(paths: list[Path]) -> None:
    """Contents of equal size change places: names and sizes stay."""
    contents = [path.read_bytes() for path in paths]
    size = max(map(len, contents))
    for path, content in zip(paths, reversed(contents), strict=True):
        path.write_bytes(content + b"\0" * (size - len(content)))


def inverted(root: Path) -> Path:
    copy = copy_of(root, "inverted")
    for path in copy.glob("*/*/*.JPEG"):
        invert(path)
    return copy


class Means(FeatureNet):
    """The mean of each channel, and twice that of the first."""

    name = "means"
    dim = 4

    def features(self, images: torch.Tensor) -> torch.Tensor:
        means = images.float().mean((2, 3))
        return torch.cat((means, 2 * means[:, :1]), dim=1)

    def protocol(self) -> dict[str, Any]:
        return {"encoder": self.name}


def reference(datamodule: Any, folder: Path, **options: Any) -> tuple[torch.Tensor, str]:
    """The mean feature of the training set, and the hash on its card."""
    chosen = ReferenceSet("train", cache=ReferenceCache(folder), **options)
    found, about = chosen.statistics(datamodule, Means(), MetricPlan.of(["frechet"], {}), 8, torch.device("cpu"))
    return found.moments["features"].mean, about["hash"]


@pytest.mark.parametrize("options", [{}, {"max_images": 5}], ids=["all", "subset"])
def test_other_pixels_under_the_same_names_have_moments_of_their_own(
    imagenet: Path, tmp_path: Path, options: dict[str, int]
):
    plain, other = read(imagenet), read(inverted(imagenet))
    mean, identity = reference(plain, tmp_path / "moments", **options)
    negative, another = reference(other, tmp_path / "moments", **options)
    assert identity != another
    assert abs(float((mean + negative)[0]) - 255) < 2 and abs(float((mean - negative)[0])) > 20


def test_a_copy_elsewhere_is_the_same_set(imagenet: Path, tmp_path: Path):
    mean, identity = reference(read(imagenet), tmp_path / "moments")
    files = sorted((tmp_path / "moments").iterdir())
    again, same = reference(read(copy_of(imagenet)), tmp_path / "moments")
    assert same == identity and torch.equal(mean, again) and sorted((tmp_path / "moments").iterdir()) == files


def test_pictures_of_equal_size_that_changed_places_are_another_set(imagenet: Path):
    paths = sorted(imagenet.glob("train/n01440764/*.JPEG"))[:2]
    swap(paths)
    before = read(imagenet).train.fingerprint
    sizes = [path.stat().st_size for path in paths]
    swap(paths)
    assert [path.stat().st_size for path in paths] == sizes and read(imagenet).train.fingerprint != before


def test_captioned_and_fitted_sets_are_known_by_their_files_too(coco: Path, text: Any):
    def identities(root: Path) -> list[str]:
        datamodule = COCO(text=text, root=root, resolution=16, batch_size=2, num_workers=1)
        datamodule.setup()
        grey = fitted(datamodule, 1, 8)
        return [identity_of(images) for images in (datamodule.train, grey.train, fitted(datamodule, 1, 4).train)]

    before, copied = identities(coco), identities(copy_of(coco))
    assert before == copied and len(set(before)) == 3
    for path in coco.glob("train2014/*"):
        invert(path)
    assert not set(before) & set(identities(coco))


def test_decoding_beforehand_makes_no_other_set(imagenet: Path):
    plain, cached = read(imagenet), read(imagenet, cache=True)
    assert identity_of(cached.train) == identity_of(plain.train)
    assert identity_of(cached.train.subset(5)) == identity_of(plain.train.subset(5))
    assert torch.equal(cached.train.subset(5).images, plain.train.subset(5).images)


def test_decoded_images_of_other_pixels_are_refused_and_those_of_a_copy_taken(imagenet: Path):
    read(imagenet, cache=True)
    copy = copy_of(imagenet)
    read(copy, cache=True)
    for path in copy.glob("train/*/*.JPEG"):
        invert(path)
    with pytest.raises(DataError, match="decoded_16 was made from other images: delete it"):
        read(copy, cache=True)


@pytest.mark.parametrize("split", ["train", "test"])
def test_latents_of_other_pictures_are_neither_completed_nor_used_with_these(
    imagenet: Path, vae: Any, tmp_path: Path, split: str
):
    cache, cpu = LatentCache(tmp_path / "cache"), torch.device("cpu")

    def fill(datamodule: ImageNet) -> None:
        cache.begin(describe(datamodule, vae, 5, cpu), _small_arrays(datamodule, cpu))
        encode(datamodule, vae, cache, list(cache.shards()), cpu, 4)

    fill(read(imagenet))
    for root, is_same in ((copy_of(imagenet), True), (inverted(imagenet), False)):
        pictures = read(root)
        latents = Latents(vae, pictures, root=cache.folder, batch_size=4, with_pictures=split == "train")
        if is_same:
            fill(pictures)
            latents.setup()
            assert len(latents.reference_pictures(split)) == {"train": 12, "test": 6}[split]
            continue
        with pytest.raises(DataError, match=r"holds other latents \(images=.*give another output"):
            fill(pictures)
        with pytest.raises(DataError, match=r"made of other pictures than those of .*give data\.pictures\.root the"):
            latents.setup()
            latents.reference_pictures(split)


def test_an_empty_or_dangling_file_is_named_before_anything_is_computed(imagenet: Path):
    path = imagenet / "train/n01440764/n01440764_1.JPEG"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=r"train/n01440764/n01440764_1\.JPEG in .*imagenet is empty: put a whole one"):
        _ = read(imagenet).train.fingerprint
    path.unlink()
    path.symlink_to(imagenet / "gone.JPEG")
    with pytest.raises(DataError, match=r"lacks train/n01440764/n01440764_1\.JPEG \(No such file"):
        _ = read(imagenet).train.fingerprint


class Listed:
    """Many files that are not there: what is asked of them is counted."""

    path = Path("nowhere")

    def __init__(self, num: int, changed: frozenset[int] = frozenset()) -> None:
        self.num, self.changed, self.read_ones = num, changed, 0

    def sizes(self, names: list[str]) -> list[int]:
        return [100] * len(names)

    def checksums(self, names: list[str]) -> list[int]:
        self.read_ones += len(names)
        return [int(name) in self.changed for name in names]


def identity(files: Listed) -> str:
    return identity_of_files(files, [str(number) for number in range(files.num)])  # type: ignore[arg-type]


def test_of_many_files_a_fixed_sample_is_read_which_sees_one_changed_in_a_hundred():
    num = 100_000
    plain = Listed(num)
    before = identity(plain)
    assert plain.read_ones == 4096 and identity(Listed(num)) == before
    changes = np.random.default_rng(0)
    for _ in range(5):
        some = frozenset(changes.choice(num, num // 100, replace=False).tolist())
        assert identity(Listed(num, some)) != before


def test_of_few_files_each_one_counts():
    before = identity(Listed(500))
    assert len({before, *(identity(Listed(500, frozenset({row}))) for row in range(0, 500, 25))}) == 21


def test_a_folder_and_its_archive_are_the_same_files(tmp_path: Path):
    (tmp_path / "set/a").mkdir(parents=True)
    for name in ("a/1", "a/2", "b"):
        (tmp_path / "set" / name).write_text(f"content of {name}")
    archive = Path(shutil.make_archive(str(tmp_path / "set"), "zip", tmp_path, "set"))
    names = ["b", "a/2", "a/1"]
    found = {identity_of_files(files, names) for files in (Folder(tmp_path / "set"), Zip(archive, "set"))}
    (tmp_path / "set/b").write_text("CONTENT of b")
    assert len(found) == 1 and identity_of_files(Folder(tmp_path / "set"), names) not in found
    for files in (Folder(tmp_path / "set"), Zip(archive, "set")):
        with pytest.raises(DataError, match="lacks"):
            identity_of_files(files, ["a/3"])
