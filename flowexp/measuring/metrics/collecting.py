"""What one pass over pictures must leave behind, so that every metric can be computed from it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch
from torch import Tensor

from flowexp.measuring.metrics.inception_score import InceptionScore, Score
from flowexp.measuring.metrics.moments import FeatureMoments, Moments
from flowexp.measuring.metrics.stored import FeatureStore


@dataclass(frozen=True)
class Needs:
    """moments: of which outputs. features: whether the features themselves. logits: whether the Inception Score."""

    moments: tuple[str, ...] = ()
    features: bool = False
    logits: bool = False

    @property
    def outputs(self) -> tuple[str, ...]:
        """What an encoder must give for these needs."""
        extra = ("features",) * self.features + ("logits",) * self.logits
        return tuple(dict.fromkeys((*self.moments, *extra)))

    def without(self, moments: Mapping[str, Moments]) -> Needs:
        """The needs that remain where these moments are known, as from a reference file of ADM."""
        return replace(self, moments=tuple(name for name in self.moments if name not in moments))


@dataclass(frozen=True)
class Statistics:
    """Statistics of a set of images: moments by output, features (N, D) on the CPU, and the Inception Score."""

    moments: Mapping[str, Moments] = field(default_factory=dict)
    features: Tensor | None = None
    inception: Score | None = None


class FeatureCollector:
    """Takes the outputs of N pictures batch by batch; `compute` joins all processes, all of which must call it.

    Arguments:
        num: N; each picture is added once, by one process.
        dims: the length of each output's vectors.
        split_size: of the Inception Score.
        device: of the sums; the features' device is best. Stored features lie on the CPU.
        folder: see `FeatureStore`.
    """

    def __init__(
        self,
        num: int,
        dims: Mapping[str, int],
        needs: Needs,
        split_size: int = 5000,
        device: torch.device | str = "cpu",
        folder: Path | None = None,
    ) -> None:
        self.moments = {name: FeatureMoments(dims[name]).to(device) for name in needs.moments}
        self.store = FeatureStore(num, dims["features"], folder) if needs.features else None
        self.score = InceptionScore(num, split_size, dims["logits"]).to(device) if needs.logits else None

    def update(self, outputs: Mapping[str, Tensor], indices: Tensor) -> None:
        """Adds the outputs, (B, dim) each, of the pictures numbered `indices` (B,)."""
        for name, moments in self.moments.items():
            moments.update(outputs[name])
        if self.store is not None:
            self.store.update(outputs["features"], indices)
        if self.score is not None:
            self.score.update(outputs["logits"], indices)

    def compute(self) -> Statistics:
        """What was collected, on every process.

        Raises:
            ValueError: fewer than two pictures, a picture that is missing, or outputs that are not finite.
        """
        moments = {name: metric.compute() for name, metric in self.moments.items()}
        features = None if self.store is None else self.store.gather()
        return Statistics(moments, features, None if self.score is None else self.score.compute())
