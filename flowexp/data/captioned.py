"""Datasets whose labels are captions, embedded when a batch arrives at its device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.sets.batch_rows import Batch, Images
from flowexp.data.sets.captions import IN_EVALUATION_ORDER, CaptionedSet, CaptionNumbers, evaluation_order
from flowexp.data.sets.encoder_protocols import CaptionEncoder


class Captioned(ImageDataModule):
    """A dataset with a text encoder `text`; without one (None) it is a dataset without captions.

    `load` fills `texts` by `captioned`. Each epoch takes one caption of each image at random and embeds it on the
    device of the batch. Samples take the held-out captions in one fixed random order.
    """

    def use_text(self, text: CaptionEncoder | None) -> None:
        """Sets the text encoder, for the constructor."""
        self.text = text
        self.text_shape = None if text is None else text.shape
        self.texts: dict[str, list[str]] = {}

    def captioned(self, split: str, pictures: Images, captions: Sequence[Sequence[str]]) -> CaptionedSet[Images]:
        """The pictures of "train" or "test" with their captions, one or more for each."""
        self.texts[split] = [caption for several in captions for caption in several]
        return CaptionedSet(pictures, CaptionNumbers.of([len(several) for several in captions]))

    def on_after_batch_transfer(self, batch: Batch, dataloader_idx: int) -> dict[str, Any]:
        """Images become float32 in [-1, 1], and the numbers of captions (B,) their embeddings (B, L, D)."""
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        if self.text is None or batch["label"].is_floating_point():
            return batch
        captions = [self.texts["train"][number] for number in batch["label"].tolist()]
        return {**batch, "label": self.text.encode(captions, batch["image"].device)}

    def conditions(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor | None:
        if self.text is None:
            return None
        order = evaluation_order(len(self.texts["test"]))
        return self.text.encode([self.texts["test"][order[index % len(order)]] for index in indices], device)

    def captions_protocol(self) -> dict[str, Any]:
        return {} if self.text is None else {"order": IN_EVALUATION_ORDER, "num": len(self.texts["test"])}

    def embed_texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor | None:
        return None if self.text is None else self.text.encode(texts, device)

    def null_text(self, device: torch.device | str = "cpu") -> Tensor | None:
        return None if self.text is None else self.text.encode([""], device)[0]
