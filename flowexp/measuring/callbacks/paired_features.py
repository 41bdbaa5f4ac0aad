"""Features of several samplers' samples from the same noise, and of real pictures in the same space."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from flowexp.data import ImageDataModule
from flowexp.flow.sampler import Sampler
from flowexp.integrations.encoders import FeatureNet
from flowexp.measuring.callbacks.autocast import autocast
from flowexp.measuring.callbacks.nfe_progress import CallBar, network_calls, rows_per_call
from flowexp.measuring.callbacks.resumable import Kept
from flowexp.measuring.diagnostics import Projection, create_projection
from flowexp.measuring.metrics import FeatureCollector, Moments
from flowexp.measuring.metrics.collecting import Needs
from flowexp.objectives import FlowMatching
from flowexp.training.parallel.work import num_own, rank_and_world_size, share

Key = TypeVar("Key")


@dataclass(frozen=True)
class PairedFeatures:
    """A space of features: those of `encoder`, projected to at most `dim` numbers. Each batch is stored once drawn.

    Arguments:
        batch_size, precision: of sampling.
    """

    encoder: FeatureNet
    dim: int
    batch_size: int
    precision: str
    kept: Kept

    def of_samplers(
        self,
        samplers: Mapping[Key, Sampler],
        num: int,
        module: FlowMatching,
        datamodule: ImageDataModule,
        bar: CallBar,
        seed: int,
    ) -> dict[Key, Tensor]:
        """Features (num, dim) by sampler, row i of each from the same noise; those of equal samplers drawn once."""
        unequal, drawn = different(samplers), dict[str, Tensor]()
        calls = len(share(range(num))) * sum(map(network_calls, unequal.values()))
        if rank_and_world_size()[0] == 0:
            print(f"{num} samples of each of {len(unequal)} samplers: {calls:,} network calls", file=sys.stderr)
        bar.expect(calls)
        for place, (key, sampler) in enumerate(unequal.items(), 1):
            bar.begin(f"{key} ({place} of {len(unequal)})", rows_per_call(sampler))
            drawn[identity(sampler)] = self._of_sampler(sampler, num, module, datamodule, bar, seed)
        return {key: drawn[identity(sampler)] for key, sampler in samplers.items()}

    def of_test_images(self, num: int, datamodule: ImageDataModule, seed: int) -> Moments:
        """Moments of the features of a fixed random subset of the test images."""
        pictures, device = datamodule.reference_pictures("test").subset(num), next(self.encoder.parameters()).device

        def make() -> Tensor:
            hidden, parts = None if rank_and_world_size()[0] == 0 else True, torch.arange(num).split(self.batch_size)
            parts = tqdm(parts, desc="reference", unit="batch", leave=False, disable=hidden)
            found = [self.encoder(pictures.select(rows).images.to(device)).cpu() for rows in parts]
            return self._projection(seed)(torch.cat(found))

        return _moments(self.kept.features({"test images": num, "features": self.protocol()}, make))

    def protocol(self) -> dict[str, Any]:
        """Which features these are."""
        return self.encoder.protocol() | {"projected_to": self.dim}

    def _projection(self, seed: int) -> Projection:
        return create_projection(self.encoder.dim, self.dim, seed)

    def _of_sampler(
        self, sampler: Sampler, num: int, module: FlowMatching, datamodule: ImageDataModule, bar: CallBar, seed: int
    ) -> Tensor:
        """Features (num, dim) on every process."""
        project = self._projection(seed)
        collector = FeatureCollector(num, {"features": project.size}, Needs(features=True))
        indices, own = share(range(num)), num_own(num)
        about = {"drawn by": sampler.protocol(), "precision": self.precision, "features": self.protocol()}
        for start in range(0, len(indices), self.batch_size):
            part, before = indices[start : start + self.batch_size], bar.calls

            def make(part: Sequence[int] = part) -> Tensor:
                return project(self._drawn(sampler, part, module, datamodule, seed))

            found = self.kept.features({**about, "rows": [part[0], part[-1] + 1]}, make)
            if bar.calls == before:
                bar.skip(len(part) * network_calls(sampler))
            rows = max(0, own - start)
            collector.update({"features": found[:rows]}, torch.tensor(part[:rows], dtype=torch.int64))
        features = collector.compute().features
        assert features is not None
        return features

    def _drawn(
        self, sampler: Sampler, part: Sequence[int], module: FlowMatching, datamodule: ImageDataModule, seed: int
    ) -> Tensor:
        """The encoder's features (len(part), D) of the samples numbered `part`."""
        before, module.sampler = module.sampler, sampler
        try:
            with autocast(self.precision, module.device):
                samples = module.sample(part, seed)
        finally:
            module.sampler = before
        return self.encoder(datamodule.to_pictures(samples.images)).cpu()


def different(samplers: Mapping[Key, Sampler]) -> dict[Key, Sampler]:
    """Drop samplers that would draw the same samples as an earlier one, such as a proposal of no correction."""
    first: dict[str, Key] = {}
    for key, sampler in samplers.items():
        first.setdefault(identity(sampler), key)
    return {key: samplers[key] for key in first.values()}


def identity(sampler: Sampler) -> str:
    """Equal for samplers that draw the same samples: a constant scale has no shape."""
    settings = sampler.protocol() | ({"profile": "constant"} if sampler.s0 == sampler.s1 else {})
    return json.dumps(settings, sort_keys=True, default=str)


def _moments(features: Tensor) -> Moments:
    wide = features.double()
    return Moments(wide.mean(dim=0), torch.cov(wide.T), len(wide))
