"""Small datasets in the real formats, of real JPEGs: coloured digits of scikit-learn."""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path

import numpy as np
from PIL import Image

from flowexp.data.datasets.digits import read_table

WNIDS = ["n01440764", "n01443537", "n02119789"]


@lru_cache
def _table() -> np.ndarray:
    return read_table()[0]


def photograph(row: int, size: tuple[int, int] = (40, 50)) -> Image.Image:
    """Digit number `row`, in colour, (width, height)."""
    grey = (_table()[row].reshape(8, 8) * (255 / 16)).astype(np.uint8)
    colour = np.stack((grey, 255 - grey, np.roll(grey, 2, axis=1)), axis=-1)
    return Image.fromarray(colour).resize(size, Image.Resampling.BICUBIC)


def save(path: Path, row: int, size: tuple[int, int] = (40, 50)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    photograph(row, size).save(path, "JPEG", quality=95)


def put_imagenet(root: Path, per_class: int = 4) -> Path:
    """Three classes, `per_class` of each to train on and two held out."""
    for label, wnid in enumerate(WNIDS):
        for number in range(per_class):
            save(root / f"train/{wnid}/{wnid}_{number}.JPEG", 10 * label + number, (40 + label, 50 - number))
        for number in range(2):
            save(root / f"val/{wnid}/ILSVRC2012_val_{10 * label + number:08d}.JPEG", 100 + 10 * label + number)
    return root


def put_coco(root: Path, train: int = 5, val: int = 3) -> Path:
    """Five images to train on and three held out; image i has 2 + i mod 3 captions, listed out of order."""
    for split, num, first in (("train", train, 0), ("val", val, 50)):
        images, annotations = [], []
        for number in reversed(range(num)):
            identity = 9 + 100 * number
            name = f"COCO_{split}2014_{identity:012d}.jpg"
            save(root / f"{split}2014" / name, first + number)
            images.append({"id": identity, "file_name": name, "height": 50, "width": 40})
            for place in range(2 + number % 3):
                text = f"{split} picture {number} in words {place}"
                annotations.append({"image_id": identity, "id": 1000 * place + number, "caption": f"{text}\n"})
        path = root / "annotations" / f"captions_{split}2014.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps({"info": {}, "images": images, "licenses": [], "annotations": annotations}))
    return root
