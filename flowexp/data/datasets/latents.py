"""Latents that an autoencoder made beforehand, of any dataset: `flowexp.encode` writes them, these read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from flowexp.data.base import ImageDataModule
from flowexp.data.captioned import Captioned
from flowexp.data.errors import DataError
from flowexp.data.sets.batch_rows import Batch, Images, Pick, subset_rows
from flowexp.data.sets.captions import IN_EVALUATION_ORDER, CaptionedSet, CaptionNumbers, evaluation_order
from flowexp.data.sets.encoder_protocols import Autoencoder
from flowexp.data.sets.identity import identity_of
from flowexp.data.sets.images import to_uint8
from flowexp.data.sets.latents_with_images import PicturedSet
from flowexp.data.storage.latent_cache import LatentCache
from flowexp.data.storage.npy_files import ShardedArray
from flowexp.flow.randomness import SampleNoise, hash_key
from flowexp.records.files import fingerprint

_POSTERIOR = 0x1A7E  # keeps this stream apart from others with the same seed
_FACTOR = 8  # pixels per latent, on a side


@dataclass(frozen=True, eq=False)
class LatentSet:
    """Mapped latents with their labels, see `Images`; a batch samples each from its posterior anew.

    Arguments:
        store: rows (flips, 2, C, h, w), float16: mean and standard deviation.
        rows: which of them these are, int64 (N,).
        labels: int64 (N,).
        scale: what latents are multiplied by.
        origin: what identifies the rows of `store`.
    """

    store: ShardedArray
    rows: Tensor
    labels: Tensor
    scale: float
    origin: str = ""

    prefetch: ClassVar[int] = 2
    device: ClassVar[torch.device] = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def fingerprint(self) -> str:
        """Of what they were made from and which these are; no latent is read."""
        return fingerprint.of_content(f"{self.origin} {self.scale}", self.rows)

    @property
    def images(self) -> Tensor:
        """All of them, float32 (N, C, h, w), one fixed sample of each: what diagnostics measure on."""
        return self.batch(Pick(torch.arange(len(self))))["image"]

    def select(self, rows: Tensor) -> LatentSet:
        """The latents of the given rows (num,), not read yet."""
        return replace(self, rows=self.rows[rows], labels=self.labels[rows])

    def subset(self, num: int) -> LatentSet:
        """A fixed random subset, see `subset_rows`."""
        return self.select(subset_rows(num, len(self)))

    def to(self, device: torch.device | str) -> LatentSet:
        """Refused: they are not in memory."""
        raise DataError("latents are read batch by batch and cannot stay on a device: set data.on_device=false")

    def batch(self, pick: Pick) -> Batch:
        """`image` float32 (B, C, h, w), scale * (mean + std * noise), and `label` int64 (B,).

        The noise is decided by (seed, epoch, row in the cache) alone.
        """
        rows = self.rows[pick.rows]
        moments = self.store.gather(rows.numpy())  # both flips lie side by side: one read
        flips = np.zeros(len(rows), np.int64) if pick.flips is None else pick.flips.numpy().astype(np.int64)
        mean, std = torch.from_numpy(moments[np.arange(len(rows)), flips]).float().unbind(1)
        noise = SampleNoise(hash_key(pick.seed, _POSTERIOR, pick.epoch), rows, mean.shape[1:]).draw()
        return {"image": noise.mul_(std).add_(mean).mul_(self.scale), "label": self.labels[pick.rows]}


class Latents(ImageDataModule):
    """Latents of a labelled dataset, 4 channels at an eighth of the pictures' side, from a cache in `root`.

    Each epoch draws a new sample of every image's posterior. Mirrored latents are those of the mirrored picture. The
    autoencoder is read only when samples are to become pictures, the pictures only when samples are compared with them.

    Arguments:
        vae: the autoencoder that made the latents.
        pictures: the dataset that they were made of; its files may be gone until something is compared with them.
        root, batch_size, train_size, flip, seed: see ImageDataModule; `flip` needs a cache with both flips.
        with_pictures: batches have the pictures too, which REPA's teacher looks at; their files must be there.
        decoder: decodes samples in place of `vae`: ft_mse and ft_ema differ in their decoders only, and REPA encodes
            with the one and decodes with the other.

    Raises:
        ValueError: a number that is not positive.
    """

    channels = 4

    def __init__(
        self,
        vae: Autoencoder,
        pictures: ImageDataModule,
        root: str | Path | None = None,
        batch_size: int = 256,
        train_size: int | None = None,
        flip: bool | None = None,
        seed: int = 0,
        decoder: Autoencoder | None = None,
        with_pictures: bool = False,
    ) -> None:
        self.name = f"{pictures.name}_latents_{pictures.resolution}"
        super().__init__(root, batch_size, train_size, pictures.flips if flip is None else flip, seed)
        self.vae = vae
        self.decoder = decoder
        self.with_pictures = with_pictures
        self.pictures = pictures
        self.num_classes = pictures.num_classes
        self.num_train = pictures.num_train
        self.resolution = pictures.resolution // _FACTOR
        self.cache = LatentCache(self.root)

    def load(self) -> tuple[Images, Images]:
        self.check_cache()
        return self.pictured(self.latents("train")), self.latents("test")

    def pictured(self, latents: Images) -> Images:
        """The training latents, with their pictures where `with_pictures` is set."""
        if not self.with_pictures:
            return latents
        pictures = self.pictures.load()[0]
        self._check_pictures(pictures, "train")
        return PicturedSet(latents, pictures)

    def _check_pictures(self, pictures: Images, split: str) -> None:
        """Refuses pictures that are not those that were encoded.

        Raises:
            DataError: of as many pictures some are others.
        """
        manifest = self.cache.manifest
        if len(pictures) != manifest.num_images[split]:
            return  # nothing to compare with
        if identity_of(pictures) != manifest.images[split]:
            raise DataError(
                f"the latents in {self.root} were made of other pictures than those of {split} in "
                f"{self.pictures.root}: give data.pictures.root the folder that was encoded, or encode again into "
                "another folder"
            )

    def check_cache(self) -> None:
        """Refuses a cache of other latents.

        Raises:
            DataError: what differs.
        """
        self.cache.check(
            dataset=self.pictures.name,
            resolution=self.pictures.resolution,
            vae=self.vae.name,
            scale=self.vae.scale,
            shape=[self.channels, self.resolution, self.resolution],
        )
        if self.flip and self.cache.manifest.flips < 2:
            raise DataError(f"the latents in {self.root} have no mirrored ones: set data.flip=false, or encode again")

    def latents(self, split: str) -> LatentSet:
        """The latents of a split with their classes."""
        labels = torch.from_numpy(self.cache.small(f"{split}_labels"))
        origin = f"{split} of {replace(self.cache.manifest, digests={})}"
        return LatentSet(self.cache.latents(split), torch.arange(len(labels)), labels, self.vae.scale, origin)

    def to_data(self, images: Tensor) -> Tensor:
        """Latents (B, C, H, W) are data as they are."""
        return images

    def to_pictures(self, samples: Tensor) -> Tensor:
        """Latents, float (B, 4, h, w), decoded: uint8 (B, 3, 8h, 8w).

        Raises:
            DataError: the autoencoder has other weights than the one that made the cache.
            ValueError: its weights cannot be had.
        """
        return to_uint8(self._checked_decoder.decode(samples / self.vae.scale))

    @cached_property
    def _checked_decoder(self) -> Autoencoder:
        if self.decoder is not None:
            return self.decoder
        self.cache.check(vae_weights=self.vae.fingerprint)
        return self.vae

    @property
    def picture_resolution(self) -> int:
        return self.pictures.resolution

    def pictures_protocol(self) -> dict[str, Any]:
        decoder = self.vae if self.decoder is None else self.decoder
        return {"decoder": decoder.name, "scale": self.vae.scale}

    def reference_pictures(self, split: str) -> Images:
        self.pictures.setup()
        pictures = self.pictures.reference_pictures(split)
        self._check_pictures(pictures, split)
        return pictures


@dataclass(frozen=True, eq=False)
class EmbeddedSet(CaptionedSet[LatentSet]):
    """Latents whose batches have the embedding of a caption as `label`.

    Arguments:
        embeddings: of all captions of the split, rows (L, D) in float16.
    """

    embeddings: ShardedArray

    def batch(self, pick: Pick) -> Batch:
        """`image` float32 (B, C, h, w), and `label` float32 (B, L, D), the embedding of a caption of each."""
        batch = super().batch(pick)
        return {**batch, "label": torch.from_numpy(self.embeddings.gather(batch["label"].numpy())).float()}


class TextLatents(Latents):
    """Latents of a dataset with captions, and the embeddings of the captions, from a cache in `root`.

    Each epoch takes one caption of each image at random; samples take the held-out ones in one fixed random order.

    Arguments:
        pictures: the dataset, whose `text` embedded the captions.
        others: see Latents.
    """

    pictures: Captioned

    def __init__(self, vae: Autoencoder, pictures: Captioned, **others: Any) -> None:
        super().__init__(vae, pictures, **others)
        self.text_shape = pictures.text_shape

    def check_cache(self) -> None:
        super().check_cache()
        self.cache.check(text=None if self.pictures.text is None else self.pictures.text.name)

    def load(self) -> tuple[Images, Images]:
        self.check_cache()
        return self.pictured(self._embedded("train")), self._embedded("test")

    def _embedded(self, split: str) -> EmbeddedSet:
        numbers = CaptionNumbers.of(torch.from_numpy(self.cache.small(f"{split}_captions")))
        return EmbeddedSet(self.latents(split), numbers, self.cache.text(split))

    def conditions(self, indices: Sequence[int], device: torch.device | str = "cpu") -> Tensor:
        embeddings = self.cache.text("test")
        order = evaluation_order(len(embeddings))
        chosen = order[torch.as_tensor(list(indices)) % len(order)]
        return torch.from_numpy(embeddings.gather(chosen.numpy())).to(device, torch.float32)

    def captions_protocol(self) -> dict[str, Any]:
        return {"order": IN_EVALUATION_ORDER, "num": len(self.cache.text("test"))}

    def embed_texts(self, texts: Sequence[str], device: torch.device | str = "cpu") -> Tensor | None:
        return self.pictures.embed_texts(texts, device)

    def null_text(self, device: torch.device | str = "cpu") -> Tensor:
        return torch.from_numpy(self.cache.small("null_text")).to(device, torch.float32)
