"""Captions made of the names of classes, for any labelled dataset: text to image where there are no texts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.sets.batch_rows import Batch, Images
from flowexp.data.sets.captions import CaptionedSet, CaptionNumbers
from flowexp.data.sets.encoder_protocols import CaptionEncoder

SENTENCES = ("a picture of {}",)


class ClassCaptions(ImageDataModule):
    """A labelled dataset whose images are captioned with the name of their class, put into one of some sentences.

    A caption has the information of the label, in words. Each epoch takes one sentence for each image at
    random. The sets keep their labels, which probes read; batches have the embedding of a caption instead. Sample i has
    a caption of class i mod num_classes, and each round of the classes the next sentence.

    Arguments:
        pictures: the dataset, with `class_names`. Its batch size, subset, flips and seed are not used.
        text: what embeds captions.
        sentences: each with {} where the name goes, such as "a picture of {}".
        root: the folder of the pictures' files; None is that of `pictures`.
        flip: mirror training images left to right with probability 1/2; None is the habit of `pictures`.
        others: batch_size, train_size, seed and on_device, see ImageDataModule.

    Raises:
        ValueError: the classes have no names, no sentence, or one without a place for the name.
    """

    def __init__(
        self,
        pictures: ImageDataModule,
        text: CaptionEncoder,
        sentences: Sequence[str] = SENTENCES,
        root: str | Path | None = None,
        flip: bool | None = None,
        **others: Any,
    ) -> None:
        self.name = pictures.name
        super().__init__(
            pictures.root if root is None else root, flip=pictures.flips if flip is None else flip, **others
        )
        pictures.root = self.root
        self.pictures = pictures
        self.resolution = pictures.resolution
        self.channels = pictures.channels
        self.num_classes = pictures.num_classes
        self.num_train = pictures.num_train
        self.text = text
        self.text_shape = text.shape
        self.sentences = tuple(sentences)
        self.num_sentences = len(sentences)
        self.texts = captions_of(pictures, sentences)
        self._embeddings: Tensor | None = None

    def prepare_data(self) -> None:
        """Downloads or decodes the pictures, where they can be."""
        self.pictures.prepare_data()

    def load(self) -> tuple[Images, Images]:
        train, test = self.pictures.load()
        return self._captioned(train), self._captioned(test)

    def _captioned(self, pictures: Images) -> CaptionedSet[Images]:
        first = pictures.labels * self.num_sentences
        return CaptionedSet(pictures, CaptionNumbers(first, torch.full_like(first, self.num_sentences)))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> dict[str, Any]:
        """Images become float32 in [-1, 1], and the numbers of captions (B,) their embeddings (B, L, D)."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if batch["label"].is_floating_point() else {**batch, "label": self.embed(batch["label"])}

    def embed(self, numbers: Tensor) -> Tensor:
        """The embeddings (B, L, D) of captions by their number in `texts`, (B,); all are encoded once per device."""
        if self._embeddings is None or self._embeddings.device != numbers.device:
            self._embeddings = self.text.encode(self.texts, numbers.device)
        return self._embeddings[numbers]

    def conditions(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        number = torch.tensor(list(indices), device=device)
        label, turn = number % self.num_classes, number // self.num_classes
        return self.embed(label * self.num_sentences + turn % self.num_sentences)

    def captions_protocol(self) -> dict[str, Any]:
        return {"order": "classes in turns, a sentence each round", "sentences": list(self.sentences)}

    def embed_texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        return self.text.encode(texts, device)

    def null_text(self, device: torch.device | str = "cpu") -> Tensor:
        return self.text.encode([""], device)[0]


def captions_of(pictures: ImageDataModule, sentences: Sequence[str]) -> list[str]:
    """All sentences of the first class, then of the next.

    Raises:
        ValueError: see ClassCaptions.
    """
    if not pictures.class_names:
        raise ValueError(f"captions need classes with names, as those of fashion_mnist, got {pictures.name}")
    if not sentences or not all("{}" in sentence for sentence in sentences):
        raise ValueError(f'sentences must have {{}} for the name, such as "a picture of {{}}", got {list(sentences)}')
    assert len(pictures.class_names) == pictures.num_classes
    return [sentence.replace("{}", name) for name in pictures.class_names for sentence in sentences]
