from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowexp.data import COCO, BatchLoader, DataError, Pick
from flowexp.data.sets.captions import CaptionNumbers


def read(root: Path, text: Any, **options: Any) -> COCO:
    datamodule = COCO(**{"text": text, "root": root, "resolution": 16, "batch_size": 2, "num_workers": 2, **options})
    datamodule.setup()
    return datamodule


def drawn(datamodule: COCO, seed: int, epoch: int, rows: list[int]) -> list[str]:
    numbers = datamodule.train.batch(Pick(torch.tensor(rows), None, seed, epoch))["label"]
    return [datamodule.texts["train"][number] for number in numbers.tolist()]


def test_images_are_in_the_order_of_their_ids_with_their_own_captions(coco: Path, text: Any):
    datamodule = read(coco, text)
    assert len(datamodule.train) == 5 and len(datamodule.test) == 3
    assert datamodule.train.captions.counts.tolist() == [2, 3, 4, 2, 3]
    expected = [f"train picture {image} in words {place}" for image in range(5) for place in range(2 + image % 3)]
    assert datamodule.texts["train"] == expected


def test_a_batch_takes_a_caption_of_its_own_image_and_every_caption_comes_equally_often(coco: Path, text: Any):
    datamodule = read(coco, text)
    seen = Counter(caption for epoch in range(300) for caption in _numbers(datamodule, epoch))
    assert set(seen) == set(range(14))
    for start, count in zip((0, 2, 5, 9, 11), (2, 3, 4, 2, 3), strict=True):
        shares = [seen[number] / 300 for number in range(start, start + count)]
        assert sum(shares) == pytest.approx(1) and all(abs(share - 1 / count) < 0.12 for share in shares)


def _numbers(datamodule: COCO, epoch: int) -> list[int]:
    return datamodule.train.captions.draw(Pick(torch.arange(5), None, 0, epoch)).tolist()


def test_the_caption_is_a_function_of_seed_epoch_and_row_alone():
    captions = CaptionNumbers.of([7] * 50)
    whole = captions.draw(Pick(torch.arange(50), None, 3, 8))
    parts = [captions.draw(Pick(rows, None, 3, 8)) for rows in torch.arange(50).split(7)]
    assert torch.equal(torch.cat(parts), whole)
    for other in (Pick(torch.arange(50), None, 4, 8), Pick(torch.arange(50), None, 3, 9)):
        assert not torch.equal(captions.draw(other), whole)


def test_the_ranks_slices_are_the_batch_with_its_captions(coco: Path, text: Any):
    train = read(coco, text).train
    whole = list(BatchLoader(train, 4, seed=2))
    ranks = [list(BatchLoader(train, 4, seed=2, rank=rank, world_size=2)) for rank in range(2)]
    for batch, *parts in zip(whole, *ranks, strict=True):
        assert torch.equal(torch.cat([part["label"] for part in parts]), batch["label"])


def test_after_the_transfer_captions_are_embeddings_and_pictures_floats(coco: Path, text: Any):
    datamodule = read(coco, text)
    batch = next(iter(datamodule.train_dataloader()))
    moved = datamodule.on_after_batch_transfer(batch, 0)
    captions = [datamodule.texts["train"][number] for number in batch["label"].tolist()]
    assert torch.equal(moved["label"], text.encode(captions)) and moved["label"].shape == (2, *datamodule.text_shape)
    assert moved["image"].dtype == torch.float32 and moved["image"].shape == (2, 3, 16, 16)


def test_a_subset_keeps_each_images_captions(coco: Path, text: Any):
    datamodule = read(coco, text, train_size=3)
    names = datamodule.train.pictures.names
    for row, caption in enumerate(drawn(datamodule, 0, 0, [0, 1, 2])):
        assert caption.startswith(f"train picture {int(names[row][-16:-4]) // 100} ")


def test_samples_take_held_out_captions_in_one_order_that_comes_round_again(coco: Path, text: Any):
    datamodule = read(coco, text)
    num = len(datamodule.texts["test"])
    first = datamodule.conditions(range(num))
    expected = text.encode(datamodule.texts["test"])
    assert {tuple(row.flatten().tolist()) for row in first} == {tuple(row.flatten().tolist()) for row in expected}
    assert not torch.equal(first, expected) and torch.equal(datamodule.conditions([num + 2, 1]), first[[2, 1]])
    assert torch.equal(datamodule.null_text(), text.encode([""])[0])


def lose(pattern: str) -> Any:
    return lambda root: next(root.glob(pattern)).unlink()


def empty_a_caption(root: Path) -> None:
    path = root / "annotations/captions_val2014.json"
    content = json.loads(path.read_text())
    content["annotations"] = [entry for entry in content["annotations"] if entry["image_id"] != 9]
    path.write_text(json.dumps(content))


def with_first(key: str, of: str, value: Any) -> Any:
    """Sets a key of the first entry in a list of captions_val2014.json."""

    def spoil(root: Path) -> None:
        path = root / "annotations/captions_val2014.json"
        content = json.loads(path.read_text())
        content[of][0][key] = value
        path.write_text(json.dumps(content))

    return spoil


FAULTS = {
    "no annotations": (lose("annotations/captions_train2014.json"), r"MS-COCO 2014 not found in .*data=digits"),
    "truncated": (
        lambda root: (root / "annotations/captions_val2014.json").write_text("{"),
        "is damaged or no caption file of COCO",
    ),
    "instances": (
        lambda root: (root / "annotations/captions_val2014.json").write_text("[]"),
        "is damaged or no caption file of COCO",
    ),
    "no caption": (empty_a_caption, "1 images without a caption, the first 9"),
    "a caption that is null": (
        with_first("caption", "annotations", None),
        r"captions_val2014\.json is damaged .*must have a string as caption, got None",
    ),
    "a caption that is a list": (with_first("caption", "annotations", ["a"]), "must have a string as caption, got .*a"),
    "a file name that is null": (with_first("file_name", "images", None), "must have a string as file_name, got None"),
    "an id that is null": (with_first("id", "annotations", None), r"captions_val2014\.json is damaged"),
    "an image id that is a list": (with_first("image_id", "annotations", []), r"captions_val2014\.json is damaged"),
    "no image": (lose("val2014/*.jpg"), r"must have 3 images, got captions of 3, of which 1 lack their file"),
}


@pytest.mark.slow
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_in_the_tree_is_a_sentence(coco: Path, text: Any, fault: str):
    spoil, sentence = FAULTS[fault]
    spoil(coco)
    with pytest.raises(DataError, match=sentence):
        read(coco, text)


@pytest.mark.slow
def test_an_mmdit_trains_a_step_on_pixels_and_captions(coco: Path, text: Any):
    import pytorch_lightning as pl

    from flowexp.backbones import create_backbone
    from flowexp.objectives import FlowMatching

    datamodule = read(coco, text, resolution=8)
    length, dim = datamodule.text_shape
    backbone = create_backbone(
        "mmdit_nano", resolution=8, channels=3, depth=2, width=16, heads=2, text_length=length, text_dim=dim
    )
    before = _weights(backbone)
    trainer = pl.Trainer(
        max_steps=1, accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
    )
    trainer.fit(FlowMatching(backbone), datamodule=datamodule)
    assert not torch.equal(_weights(backbone), before)


def _weights(backbone: torch.nn.Module) -> Tensor:
    return backbone.context_embedder.weight.detach().clone()
