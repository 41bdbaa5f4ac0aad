"""What a probe reads off something that no flow matching has trained: raw pixels, and features of a frozen encoder.

A network's features that know less of classes than the pixels which they are made of have lost it; no curve over the
noise level says so by itself.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from flowexp.data import ImageDataModule, Images
from flowexp.data.sets.identity import identity_of
from flowexp.integrations.encoders import FeatureNet
from flowexp.measuring.diagnostics.probe import ProbeProtocol, read_features
from flowexp.records.files import atomic
from flowexp.records.files.caches import dispensable
from flowexp.records.files.fingerprint import sha256_of
from flowexp.records.files.json_files import read_object
from flowexp.training.parallel.work import collect, rank_and_world_size

BASELINES = ("pixels", "encoder")
MOST_PIXELS = 4096  # numbers of an image that a classifier is fitted to; larger images are averaged down
LOST = "the baselines of probes are used and computed anew next time; let callbacks.probe.cache be another folder"

Row = dict[str, Any]


@dataclass(frozen=True)
class ProbeBaselines:
    """Accuracies of the same probes on other features of the same clean images.

    Arguments:
        names: some of `BASELINES`.
        encoder: of "encoder"; None leaves that one out.
        cache: folder that keeps the accuracies, which are the same for every run; None computes them each time.

    Raises:
        ValueError: an unknown name.
    """

    names: Sequence[str]
    encoder: FeatureNet | None = None
    cache: Path | None = None

    def __post_init__(self) -> None:
        if unknown := set(self.names) - set(BASELINES):
            raise ValueError(f"baselines must be some of {', '.join(BASELINES)}, got {', '.join(sorted(unknown))}")

    def rows(
        self,
        train: Images,
        test: Images,
        datamodule: ImageDataModule,
        readings: Sequence[str],
        protocol: ProbeProtocol,
        seed: int,
        device: torch.device,
    ) -> list[Row]:
        """A row for each baseline and reading, on every process: `features`, `reading`, `accuracy` and its fit.

        The encoder is left out for data that are no pictures, such as latents.
        """
        measured: dict[int, list[Row]] = {}
        if rank_and_world_size()[0] == 0:
            images = (train, test)
            about = {"data": datamodule.name, "images": [identity_of(each) for each in images], "seed": seed}
            fitting = {"protocol": protocol.fit(), "readings": list(readings)}
            measured[0] = [
                row
                for name, key, extract in self._features(datamodule, device)
                for row in self._cached(
                    name,
                    {**about, **fitting, **key},
                    partial(_read, extract, images, datamodule.num_classes, readings, protocol, seed),
                )
            ]
        return collect(measured)[0]

    def _features(
        self, datamodule: ImageDataModule, device: torch.device
    ) -> list[tuple[str, Mapping[str, Any], Callable[[Tensor], Tensor]]]:
        """Name, protocol and extraction, images (B, C, H, W) as stored to features (B, D), of each baseline."""
        wanted: list[tuple[str, Mapping[str, Any], Callable[[Tensor], Tensor]]] = []
        if "pixels" in self.names:
            wanted.append(("pixels", {"most": MOST_PIXELS}, lambda images: _pixels(datamodule.to_data(images))))
        if "encoder" in self.names and self.encoder is not None and datamodule.test.images[:1].dtype == torch.uint8:
            network = self.encoder.to(device)
            wanted.append((network.name, network.protocol(), lambda images: network(images.to(device))))
        return wanted

    def _cached(self, name: str, key: Mapping[str, Any], measure: Callable[[], list[Row]]) -> list[Row]:
        if self.cache is None:
            return [{"features": name, **row} for row in measure()]
        said = json.dumps({"features": name, **key}, sort_keys=True, default=str)
        file = self.cache / f"{name}_{sha256_of(said.encode())}.json"
        try:
            kept = read_object(file)
            if kept.get("key") == json.loads(said):
                return list(kept["rows"])
        except (OSError, ValueError, KeyError, TypeError):
            pass
        rows = [{"features": name, **row} for row in measure()]
        with dispensable(self.cache, LOST):
            self.cache.mkdir(parents=True, exist_ok=True)
            atomic.write_json(file, {"key": json.loads(said), "rows": rows})
        return rows


def _pixels(data: Tensor) -> Tensor:
    """Data (B, C, H, W) as vectors (B, D), averaged down by whole factors until D is at most `MOST_PIXELS`."""
    _, channels, height, width = data.shape
    factor = 1
    while channels * math.ceil(height / factor) * math.ceil(width / factor) > MOST_PIXELS:
        factor += 1
    return F.avg_pool2d(data, factor, ceil_mode=True).flatten(1) if factor > 1 else data.flatten(1)


def _read(
    extract: Callable[[Tensor], Tensor],
    images: tuple[Images, Images],
    num_classes: int,
    readings: Sequence[str],
    protocol: ProbeProtocol,
    seed: int,
) -> list[Row]:
    train, test = images
    features = [_extracted(extract, each)[None] for each in images]
    data = (features[0], train.labels, features[1], test.labels, num_classes)
    rows = []
    for reading in readings:
        result = read_features(reading, *data, protocol=protocol, seed=seed)
        fit = vars(result.fits[0]) if result.fits else {}
        rows.append({"reading": reading, "accuracy": float(result.accuracy[0]), **fit})
    return rows


def _extracted(extract: Callable[[Tensor], Tensor], images: Images, batch_size: int = 256) -> Tensor:
    """Features (N, D) float32."""
    rows = torch.arange(len(images)).split(batch_size)
    bar = tqdm(rows, desc="baseline", unit="batch", leave=False, disable=None)
    return torch.cat([extract(images.select(part).images).float() for part in bar])
