"""Datasets in the format of `datasets`, written by it here: no network."""

from __future__ import annotations

import io
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from flowexp.data import DataError, HubDataset
from flowexp.integrations.encoders.words import HashedWords

datasets = pytest.importorskip("datasets", reason="the extra flowexp[hub] is not installed")


def rows(num: int, start: int = 0) -> Any:
    """Pictures as bright as their number, two classes, a caption, several captions."""
    numbers = range(start, start + num)
    features = datasets.Features(
        {
            "img": datasets.Image(),
            "fine_label": datasets.ClassLabel(names=["dark", "bright"]),
            "title": datasets.Value("string"),
            "captions": datasets.List(datasets.Value("string")),
        }
    )
    columns = {
        "img": [Image.new("L", (20, 12), 10 * number) for number in numbers],
        "fine_label": [number % 2 for number in numbers],
        "title": [f"number {number}" for number in numbers],
        "captions": [[f"one {number}", f"two {number}"] for number in numbers],
    }
    return datasets.Dataset.from_dict(columns, features=features)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "hub_cache")
    datasets.disable_progress_bars()


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    """Two splits as `save_to_disk` writes them."""
    datasets.DatasetDict({"train": rows(6), "test": rows(4, start=6)}).save_to_disk(str(tmp_path / "saved"))
    return tmp_path / "saved"


def opened(source: Path | str, tmp_path: Path, **settings: Any) -> HubDataset:
    where = {"root": tmp_path / "decoded", "batch_size": 2, "resolution": 8}
    datamodule = HubDataset(str(source), **{**where, **settings})
    datamodule.setup("fit")
    return datamodule


def test_splits_pictures_and_classes_are_found_by_their_kinds(saved: Path, tmp_path: Path) -> None:
    datamodule = opened(saved, tmp_path)
    assert datamodule.class_names == ("dark", "bright") and datamodule.name == "saved"
    assert datamodule.train.images.shape == (6, 3, 8, 8)
    assert datamodule.train.images[:, 0, 4, 4].tolist() == [0, 10, 20, 30, 40, 50]
    assert datamodule.test.labels.tolist() == [0, 1, 0, 1] and datamodule.text_shape is None
    again = opened(saved, tmp_path, channels=1)
    assert again.train.images.shape == (6, 1, 8, 8)


def test_captions_are_the_column_that_is_named_or_has_the_name(saved: Path, tmp_path: Path) -> None:
    datamodule = opened(saved, tmp_path, text=HashedWords(dim=4, length=2))
    assert datamodule.listing.train[1].captions == ("one 1", "two 1")
    assert datamodule.conditions(range(5)).shape == (5, 2, 4)  # type: ignore[union-attr]
    batch = datamodule.on_after_batch_transfer(next(iter(datamodule.train_dataloader())), 0)
    assert batch["label"].shape == (2, 2, 4)
    assert opened(saved, tmp_path, text=HashedWords(), caption="title").listing.train[1].captions == ("number 1",)


def test_a_folder_of_parquet_has_one_split_of_which_some_is_held_out(tmp_path: Path) -> None:
    (tmp_path / "parquet").mkdir()
    rows(10).to_parquet(str(tmp_path / "parquet/train.parquet"))
    datamodule = opened(tmp_path / "parquet", tmp_path, val_fraction=0.3)
    both = torch.cat([datamodule.train.images, datamodule.test.images])[:, 0, 4, 4]
    assert (len(datamodule.train), len(datamodule.test)) == (7, 3) and sorted(both.tolist()) == [*range(0, 100, 10)]


def test_a_damaged_picture_is_named_by_its_row(tmp_path: Path) -> None:
    content = io.BytesIO()
    Image.new("L", (4, 4)).save(content, "PNG")
    broken = {"image": [{"bytes": content.getvalue()}] * 3 + [{"bytes": b"none"}]}
    table = datasets.Dataset.from_dict(broken, features=datasets.Features({"image": datasets.Image(decode=False)}))
    table.save_to_disk(str(tmp_path / "damaged"))
    with pytest.raises(DataError, match=r"a picture of damaged cannot be read: train/3"):
        opened(tmp_path / "damaged", tmp_path)


def test_what_cannot_be_had_ends_in_a_sentence(saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing cannot be loaded .*check data\.name and the network"):
        opened("nobody/nothing", tmp_path)
    with pytest.raises(DataError, match=r"has no column picture: it has img, .*\(data\.image\)"):
        opened(saved, tmp_path, image="picture")
    with pytest.raises(DataError, match=r"title of .* must be a ClassLabel"):
        opened(saved, tmp_path, label="title")
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(DataError, match=r"data=hub needs the package datasets: pip install 'flowexp\[hub\]'"):
        opened(saved, tmp_path)
