"""The Frechet distance between EMA samples and a dataset: FID, where the features are Inception's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.precision import autocast, check_precision
from flowexp.callbacks.sharing import collect, num_own, rank_and_world_size, share
from flowexp.data import ImageDataModule, ImageSet, to_uint8
from flowexp.encoders import FeatureNet, create_encoder
from flowexp.metrics import FeatureMoments, FrechetDistance, Moments, ReferenceCache
from flowexp.metrics.reference import fingerprint
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement


class FrechetMonitor(Monitor):
    """Samples with the module's sampler and compares the features of the samples with those of a dataset.

    The distance falls with the number of samples even for the same network: compare equal numbers. Of the numbered
    samples, process r of W draws r, r + W, ...; none is kept. A class-conditional network gets class i mod num_classes.

    Arguments:
        encoder: the feature network, or its name, or its name with options as a mapping.
        num_samples: how many samples; LCF takes 7500, the Velocity Deficit paper 50 000.
        batch_size: samples drawn at once, on each process.
        reference_split: "train" (the habit of the literature) or "test".
        max_reference: compare with a fixed random subset of this many images; None is the whole split.
        cache: folder for the dataset's moments, which are the same in every run; None computes them each time.
        precision: of the network while sampling, 32-true or bf16-mixed; the encoder always works in fp32.

    Raises:
        ValueError: an unknown encoder, split or precision, fewer than two samples, or weights that cannot be had.
    """

    def __init__(
        self,
        encoder: str | Mapping[str, Any] | FeatureNet = "efficientnet_lite",
        num_samples: int = 2000,
        batch_size: int = 250,
        reference_split: str = "train",
        max_reference: int | None = None,
        cache: str | Path | None = "data/moments",
        precision: str = "32-true",
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        if num_samples < 2 or batch_size < 1:
            raise ValueError(
                f"at least 2 samples are needed, in batches of at least 1; got {num_samples}, {batch_size}"
            )
        if reference_split not in ("train", "test"):
            raise ValueError(f"reference_split must be train or test, got {reference_split!r}")
        self.encoder = _as_encoder(encoder)
        self.num_samples = num_samples
        self.batch_size = batch_size
        self.reference_split = reference_split
        self.max_reference = max_reference
        self.cache = None if cache is None else ReferenceCache(Path(cache))
        self.precision = check_precision(precision)

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        self.encoder.to(module.device)
        reference = self._reference(datamodule, module.device)
        distance = FrechetDistance(reference).to(module.device)
        nfe = self._add_samples(distance, module, seed)
        key = self.encoder.distance_name
        protocol = {
            "num_samples": self.num_samples,
            "reference": f"{datamodule.name}/{self.reference_split}",
            "num_reference": reference.count,
            "nfe": nfe,
            "seed": seed,
            "weights": "ema",
            "label": {"class": "index mod num_classes", "text": "captions"}.get(module.backbone.takes),
            "precision": self.precision,
            "sampler": module.sampler.protocol(),
            "features": self.encoder.protocol(),
        }
        return Measurement(key.replace("/", "_"), {key: float(distance.compute())}, protocol=protocol)

    def _add_samples(self, distance: FrechetDistance, module: FlowMatching, seed: int) -> int:
        """Draws this process's samples and adds their features; returns the network calls per sample."""
        indices, own, nfe = share(range(self.num_samples)), num_own(self.num_samples), 0
        for start in self._batches(len(indices), "sampling"):
            with autocast(self.precision, module.device):
                samples = module.sample(indices[start : start + self.batch_size], seed)
            features = self._features_of(samples.images)
            distance.update(features[: max(0, own - start)])
            nfe = samples.nfe
        return nfe

    def _features_of(self, samples: Tensor) -> Tensor:
        """Features of samples, NaN for one that is not finite: as a picture it would look like any other."""
        finite = samples.flatten(1).isfinite().all(dim=1, keepdim=True)
        return self.encoder(to_uint8(samples)).where(finite, torch.nan)

    def _reference(self, datamodule: ImageDataModule, device: torch.device) -> Moments:
        """The dataset's moments, from the cache if every process finds them there."""
        images = self._reference_set(datamodule).images
        key = {"dataset": datamodule.name, "split": self.reference_split, "images": fingerprint(images)}
        key |= self.encoder.protocol()
        saved = self.cache.load(key) if self.cache else None
        rank, _ = rank_and_world_size()
        if saved is not None and all(collect({rank: saved is not None}).values()):
            return saved
        moments = self._moments_of(images, device)
        if self.cache and rank == 0:
            self.cache.save(key, moments)
        return moments

    def _reference_set(self, datamodule: ImageDataModule) -> ImageSet:
        split = datamodule.train if self.reference_split == "train" else datamodule.test
        return split if self.max_reference is None else split.subset(min(self.max_reference, len(split)))

    def _moments_of(self, images: Tensor, device: torch.device) -> Moments:
        rank, world_size = rank_and_world_size()
        own, moments = images[rank::world_size], FeatureMoments(self.encoder.dim).to(device)
        for start in self._batches(len(own), "reference"):
            moments.update(self.encoder(own[start : start + self.batch_size].to(device)))
        return moments.compute()

    def _batches(self, num_items: int, title: str) -> Sequence[int]:
        """Where batches start, with a progress bar on the first process's terminal."""
        hidden = None if rank_and_world_size()[0] == 0 else True
        return tqdm(range(0, num_items, self.batch_size), desc=title, unit="batch", leave=False, disable=hidden)


def _as_encoder(encoder: str | Mapping[str, Any] | FeatureNet) -> FeatureNet:
    if isinstance(encoder, FeatureNet):
        return encoder
    return create_encoder(encoder) if isinstance(encoder, str) else create_encoder(**encoder)
