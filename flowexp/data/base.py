"""What every dataset shares: where it lies, its batches, and the way to [-1, 1]."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import torch
from pytorch_lightning import LightningDataModule
from torch import Tensor

from flowexp.data.errors import DataError
from flowexp.data.loader import BatchLoader
from flowexp.data.sets.batch_rows import Batch, Images, SomeImages
from flowexp.data.sets.images import to_float, to_uint8


class ImageDataModule(LightningDataModule, ABC):
    """An image dataset: most are read once into memory as uint8, the large ones batch by batch.

    A dataset gives `name`, `resolution`, `channels`, `num_classes`, `flips` and `load`; `prepare_data` if it can be
    downloaded or needs decoding. After `setup`, `train` and `test` are its two sets. Where the data is not pixels, or
    its labels are texts, it defines how they become pictures and embeddings: `to_data`, `to_pictures`,
    `picture_resolution`, `pictures_protocol`, `reference_pictures`, `conditions`, `captions_protocol`, `null_text`.

    Arguments:
        root: the folder of its files; None is data/<name> under the current folder.
        batch_size: images per step over all processes.
        train_size: train on a fixed random subset of this many images; None is all of them.
        flip: mirror training images left to right with probability 1/2; None is the default of the dataset.
        seed: of the order of the images and the flips.
        on_device: keep the images on the trainer's device, where they take one byte per value.

    Raises:
        ValueError: a number that is not positive.
    """

    name: str
    resolution: int
    channels: int
    num_classes: int  # 0 where there are no classes
    class_names: ClassVar[tuple[str, ...]] = ()  # as in "a picture of ...", where they are known
    flips: ClassVar[bool] = False
    text_shape: tuple[int, int] | None = None  # (L, D) of a caption's embedding, where the labels are captions
    num_train: int | None = None  # training images as published: what a dry run plans with where the files are not here

    def __init__(
        self,
        root: str | Path | None = None,
        batch_size: int = 64,
        train_size: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
        on_device: bool = False,
    ) -> None:
        super().__init__()
        check_positive(batch_size=batch_size, train_size=train_size)
        self.root = Path(root if root is not None else f"data/{self.name}").expanduser()
        self.batch_size = batch_size
        self.train_size = train_size
        self.flip = self.flips if flip is None else flip
        self.seed = seed
        self.on_device = on_device
        self._loaded: tuple[Images, Images] | None = None
        self._loader: BatchLoader | None = None
        self._resumed: dict[str, Any] = {}

    @abstractmethod
    def load(self) -> tuple[Images, Images]:
        """Reads the whole training set and test set from their files."""

    def setup(self, stage: str | None = None) -> None:
        """Reads the files, once.

        Raises:
            DataError: the files are missing or damaged, or there are too few images for `train_size`, `batch_size`.
        """
        if self._loaded is None:
            train, test = self.load()
            self._loaded = self.limited(train), test
        if self.on_device and self.trainer is not None:
            device = self.trainer.strategy.root_device
            self._loaded = self.train.to(device), self.test.to(device)

    def limited(self, train: SomeImages) -> SomeImages:
        """The part of the training set by `train_size`.

        Raises:
            DataError: there are too few images for it, or for `batch_size`.
        """
        wanted = len(train) if self.train_size is None else self.train_size
        if wanted > len(train):
            raise DataError(f"train_size must be at most the {len(train)} training images of {self.name}, got {wanted}")
        if self.batch_size > wanted:
            raise DataError(
                f"batch_size must be at most the {wanted} training images of {self.name}, got {self.batch_size}: "
                "lower data.batch_size or raise data.train_size"
            )
        return train if wanted == len(train) else train.subset(wanted)

    @property
    def train(self) -> Images:
        """The training images, after `train_size`."""
        return self._sets()[0]

    @property
    def test(self) -> Images:
        """All held-out images."""
        return self._sets()[1]

    def _sets(self) -> tuple[Images, Images]:
        assert self._loaded is not None, "call setup() first"
        return self._loaded

    @property
    def is_read(self) -> bool:
        """Whether `setup` has read the files."""
        return self._loaded is not None

    @property
    def num_train_images(self) -> int:
        """How many images are trained on, after `train_size`; where they are not read, of as many as were published."""
        if self.is_read:
            return len(self.train)
        assert self.num_train is not None, "call setup() first"
        return self.train_size or self.num_train

    @property
    def steps_per_epoch(self) -> int:
        """Batches in one pass over the training images; an incomplete last one is dropped."""
        return self.num_train_images // self.batch_size

    def train_dataloader(self) -> BatchLoader:
        """Batches of this process: from the first, or from where the loaded checkpoint's run stopped.

        Raises:
            ValueError: `batch_size` does not divide over the processes, or a checkpoint's place is in other data.
        """
        rank, world_size = (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)
        self._loader = BatchLoader(
            self.train, self.batch_size, seed=self.seed, flip=self.flip, rank=rank, world_size=world_size
        )
        if self._resumed:
            self._loader.load_state_dict(self._resumed)
            self._resumed = {}  # a second fit starts from the first batch
        return self._loader

    # Lightning saves the loader's state too, but does not always load it: not at the end of an epoch, and not if
    # estimated_stepping_batches is read in configure_optimizers (Lightning #20550). This one it always loads.
    def state_dict(self) -> dict[str, Any]:
        """The place in the data, for the checkpoint."""
        return {} if self._loader is None else self._loader.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes the place in the data from a checkpoint; the next `train_dataloader` goes on there."""
        self._resumed = dict(state_dict)

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> dict[str, Any]:
        """Images cross to the device as bytes and become float32 in [-1, 1] there."""
        if batch["image"].is_floating_point():
            return batch
        return {**batch, "image": self.to_data(batch["image"])}

    def to_data(self, images: Tensor) -> Tensor:
        """Stored images (B, C, H, W), such as `train.images`, as the data of the flow: float32, pixels in [-1, 1]."""
        return to_float(images)

    def to_pictures(self, samples: Tensor) -> Tensor:
        """Data or samples, float (B, channels, resolution, resolution), as pictures, uint8 (B, C, H, W)."""
        return to_uint8(samples)

    def reference_pictures(self, split: str) -> Images:
        """The real pictures, uint8, that samples are compared with: of "train" (after `train_size`) or "test"."""
        return self.train if split == "train" else self.test

    @property
    def picture_resolution(self) -> int:
        """Pixels per side of what `to_pictures` gives."""
        return self.resolution

    def pictures_protocol(self) -> dict[str, Any]:
        """What decides the pictures of given samples beyond rounding to uint8; empty where samples are pixels."""
        return {}

    def conditions(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor | None:
        """For samples `indices`, the embeddings (B, L, D) of held-out captions; None where the data has no texts."""
        return None

    def captions_protocol(self) -> dict[str, Any]:
        """Which captions `conditions` gives, and in what order; empty where the data has no texts."""
        return {}

    def embed_texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor | None:
        """The embeddings (B, L, D) of anybody's texts, as of captions; None where the data has no texts."""
        return None

    def null_text(self, device: torch.device | str = "cpu") -> Tensor | None:
        """The embedding (L, D) of the empty caption; None where the data has no texts."""
        return None


def check_positive(**numbers: int | None) -> None:
    """Raises ValueError for a number below 1; None is no number."""
    for name, number in numbers.items():
        if number is not None and number < 1:
            raise ValueError(f"{name} must be at least 1, got {number}")
