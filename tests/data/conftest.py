"""Small datasets in the real formats, and frozen networks."""

from __future__ import annotations

import hashlib
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

sys.path.append(str(Path(__file__).parent))
from trees import put_coco, put_imagenet


class HashText:
    """Captions to numbers that tell them apart, four per token."""

    name, fingerprint, shape = "hash", "0123456789abcdef", (3, 4)

    def encode(self, captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        rows = [list(hashlib.sha256(text.encode()).digest()[:12]) for text in captions]
        return (torch.tensor(rows, dtype=torch.float32) / 256).reshape(-1, 3, 4).to(device)


class PoolVAE:
    """An autoencoder one can compute by hand: 8 x 8 means, and their brightness as the fourth channel."""

    name, scale, fingerprint = "pool", 0.5, "fedcba9876543210"

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        mean = F.avg_pool2d(images, 8)
        mean = torch.cat((mean, mean.mean(1, keepdim=True)), dim=1)
        return Posterior(mean, 0.1 + mean.abs())

    def decode(self, latents: Tensor) -> Tensor:
        return F.interpolate(latents[:, :3], scale_factor=8)


class Posterior(tuple):
    """(mean, std) with names, as the real one."""

    def __new__(cls, mean: Tensor, std: Tensor) -> Posterior:
        return super().__new__(cls, (mean, std))

    @property
    def mean(self) -> Tensor:
        return self[0]


@pytest.fixture
def vae() -> PoolVAE:
    return PoolVAE()


@pytest.fixture
def text() -> HashText:
    return HashText()


@pytest.fixture
def imagenet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of an ImageNet of three classes."""
    monkeypatch.setattr("flowexp.data.ImageNet.num_classes", 3)
    return put_imagenet(tmp_path / "imagenet")


@pytest.fixture
def coco(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The root of a COCO of five and three images."""
    monkeypatch.setattr("flowexp.data.COCO.num_images", {"train": 5, "val": 3})
    return put_coco(tmp_path / "coco")
