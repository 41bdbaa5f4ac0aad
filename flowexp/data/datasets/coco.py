"""MS-COCO 2014: 123 287 photographs with five captions each, for text to image."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch

from flowexp.data.base import check_positive
from flowexp.data.captioned import Captioned
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.batch_rows import Images
from flowexp.data.sets.captions import CaptionedSet, CaptionNumbers
from flowexp.data.sets.encoder_protocols import CaptionEncoder
from flowexp.data.sets.file_images import Decoder, FileImages


@dataclass(frozen=True, eq=False)
class _Listed:
    """A split's files in the order of their ids, how many captions each has, and the captions in that order."""

    names: list[str]
    counts: list[int]
    texts: list[str]


class COCO(Captioned):
    """Colour images with captions: U-ViT's split, the 82 783 of train2014 to train on, the 40 504 of val2014 held out.

    Read from `root`/train2014, `root`/val2014 and `root`/annotations/captions_{train,val}2014.json, as they are
    published; nothing is downloaded. Pictures are decoded batch by batch and cut to squares as ADM does. Each
    epoch takes one caption of each image at random and embeds it on the device of the batch. Samples take the held-out
    captions in one fixed random order.

    Arguments:
        text: what embeds captions.
        resolution: side of the squares.
        num_workers: threads that decode.
        root, batch_size, train_size, flip, seed: see ImageDataModule.

    Raises:
        ValueError: a number that is not positive.
    """

    name = "coco"
    channels = 3
    num_classes = 0
    num_train = 82_783

    num_images: ClassVar[dict[str, int]] = {"train": 82_783, "val": 40_504}

    def __init__(
        self,
        text: CaptionEncoder,
        root: str | Path | None = None,
        resolution: int = 256,
        batch_size: int = 256,
        train_size: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
        num_workers: int = 8,
    ) -> None:
        super().__init__(root, batch_size, train_size, flip, seed)
        check_positive(resolution=resolution, num_workers=num_workers)
        self.use_text(text)
        self.resolution = resolution
        self.num_workers = num_workers

    def load(self) -> tuple[Images, Images]:
        return self._split("train"), self._split("val")

    def _split(self, split: str) -> CaptionedSet[FileImages]:
        listed = self._listed(split)
        self.texts["train" if split == "train" else "test"] = listed.texts
        self._check_files(split, listed.names)
        names = [f"{split}2014/{name}" for name in listed.names]
        decoder = Decoder(self.root, self.resolution, self.num_workers)
        pictures = FileImages(decoder, names, torch.zeros(len(names), dtype=torch.int64))
        return CaptionedSet(pictures, CaptionNumbers.of(listed.counts))

    def _listed(self, split: str) -> _Listed:
        path = self.root / "annotations" / f"captions_{split}2014.json"
        try:
            return _parse(json.loads(path.read_text(encoding="utf-8")))
        except FileNotFoundError as error:
            raise DataError(
                f"MS-COCO 2014 not found in {self.root} (looked for annotations/{path.name}): put the folders "
                f"train2014, val2014 and annotations there, as cocodataset.org has them, {INSTEAD}"
            ) from error
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise DataError(
                f"{path} is damaged or no caption file of COCO ({error!r}): replace it, {INSTEAD}"
            ) from error

    def _check_files(self, split: str, names: list[str]) -> None:
        folder = self.root / f"{split}2014"
        there = set(os.listdir(folder)) if folder.is_dir() else set()
        missing = [name for name in names if name not in there]
        if len(names) != self.num_images[split] or missing:
            raise DataError(
                f"{folder} and its captions must have {self.num_images[split]} images, got captions of {len(names)}, "
                f"of which {len(missing)} lack their file: put the whole of {split}2014 there, {INSTEAD}"
            )


def _parse(content: dict[str, Any]) -> _Listed:
    captions: dict[int, list[str]] = {image["id"]: [] for image in content["images"]}
    for annotation in sorted(content["annotations"], key=lambda annotation: annotation["id"]):
        captions[annotation["image_id"]].append(_text(annotation, "caption").strip())
    if without := [number for number, texts in captions.items() if not texts]:
        raise ValueError(f"{len(without)} images without a caption, the first {without[0]}")
    files = {image["id"]: _text(image, "file_name") for image in content["images"]}
    order = sorted(files)
    texts = [text for number in order for text in captions[number]]
    return _Listed([files[number] for number in order], [len(captions[number]) for number in order], texts)


def _text(entry: dict[str, Any], key: str) -> str:
    """A string of an entry; raises ValueError for anything else, such as null."""
    if not isinstance(entry[key], str):
        raise ValueError(f"the entry of id {entry['id']} must have a string as {key}, got {entry[key]!r}")
    return entry[key]
