"""The real pictures that samples are compared with, and what metrics need to know of them."""

from __future__ import annotations

import itertools
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flowexp.data import ImageDataModule
from flowexp.data.sets.identity import identity_of
from flowexp.integrations.encoders import FeatureNet
from flowexp.measuring.metrics import (
    FeatureCollector,
    MetricPlan,
    Needs,
    ReferenceCache,
    Statistics,
    read_adm_reference,
)
from flowexp.training.parallel.work import collect, rank_and_world_size


@dataclass(frozen=True)
class ReferenceSet:
    """A split of the dataset, or a reference file of ADM (.npz), with moments for Inception.

    Arguments:
        source: "train" (the habit of the literature), "test", or the path of a file.
        max_images: a fixed random subset of this many images; None is all. Of a split only.
        cache: keeps the statistics, which are the same in every run; None computes them each time.

    Raises:
        ValueError: another source.
    """

    source: str = "train"
    max_images: int | None = None
    cache: ReferenceCache | None = None

    def __post_init__(self) -> None:
        if self.source not in ("train", "test") and not self.source.endswith(".npz"):
            raise ValueError(f"reference must be train, test or a .npz file of ADM, got {self.source!r}")

    def statistics(
        self, datamodule: ImageDataModule, encoder: FeatureNet, plan: MetricPlan, batch_size: int, device: torch.device
    ) -> tuple[Statistics, dict[str, Any]]:
        """What `plan` needs of the reference, on every process, and how it is named in a protocol.

        Raises:
            ValueError: too few images for a metric, or a file that is not sound or has pictures of another size.
        """
        if self.source.endswith(".npz"):
            return self._of_file(encoder, plan, batch_size, device, datamodule.picture_resolution)
        images = datamodule.reference_pictures(self.source)
        images = images if self.max_images is None else images.subset(min(self.max_images, len(images)))
        plan.check_reference(len(images))
        identity = identity_of(images)
        key = {"dataset": datamodule.name, "split": self.source, "images": identity}
        rank, world_size = rank_and_world_size()
        own = torch.arange(len(images))[rank::world_size].split(batch_size)
        pictures = ((rows, images.select(rows).images) for rows in _with_progress(own))
        found = self._cached(key, encoder, plan.reference, len(images), pictures, device)
        return found, {"set": f"{datamodule.name}/{self.source}", "num": len(images), "hash": identity}

    def _of_file(
        self, encoder: FeatureNet, plan: MetricPlan, batch_size: int, device: torch.device, resolution: int
    ) -> tuple[Statistics, dict[str, Any]]:
        """Inception's moments as the file has them; anything else from its images, on every process."""
        file = read_adm_reference(Path(self.source), resolution)
        known = file.moments if encoder.name == "inception" else {}  # ADM's moments are of no other network
        needs, found = plan.reference.without(known), Statistics()
        if needs.outputs:
            plan.check_reference(file.shape[0])
            rank, world_size = rank_and_world_size()
            batches = ((torch.arange(len(p)) + n * batch_size, p) for n, p in enumerate(file.batches(batch_size)))
            own = itertools.islice(batches, rank, None, world_size)
            found = self._cached({"file": file.fingerprint}, encoder, needs, file.shape[0], own, device)
        about = {"set": file.path.name, "num": file.shape[0], "hash": file.fingerprint}
        return Statistics({**known, **found.moments}, found.features), about

    def _cached(
        self,
        key: Mapping[str, Any],
        encoder: FeatureNet,
        needs: Needs,
        num: int,
        pictures: Iterable[tuple[Tensor, Tensor]],
        device: torch.device,
    ) -> Statistics:
        """From the cache where every process finds it there; else from this process's rows and `pictures`."""
        images_key, rank = dict(key), rank_and_world_size()[0]
        key = {**key, **encoder.protocol()}
        saved = None if self.cache is None else self.cache.load_statistics(key, needs)
        if all(collect({rank: saved is not None}).values()):
            assert saved is not None
            return saved
        collector, pixels = FeatureCollector(num, encoder.dims, needs, device=device), 0
        for rows, images in pictures:
            pixels += sum_of_pixels(rows, images)
            collector.update(encoder.extract(images.to(device), needs.outputs), rows)
        found, pixels = collector.compute(), sum(collect({rank: pixels}).values()) % 2**64
        if self.cache is not None and rank == 0:
            self.cache.note_pixels(images_key, f"{pixels:016x}")
            self.cache.save_statistics(key, found)
        return found


def sum_of_pixels(rows: Tensor, images: Tensor) -> int:
    """A number that identifies pictures (B, C, H, W) and their rows (B,); those of all batches add up in any order."""
    contents = images.cpu().contiguous().numpy()
    return sum((2 * row + 1) * zlib.crc32(picture.data) for row, picture in zip(rows.tolist(), contents, strict=True))


def _with_progress(batches: tuple[Tensor, ...]) -> Iterator[Tensor]:
    hidden = None if rank_and_world_size()[0] == 0 else True
    yield from tqdm(batches, desc="reference", unit="batch", leave=False, disable=hidden)
