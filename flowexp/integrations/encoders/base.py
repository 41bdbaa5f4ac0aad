"""What every feature network offers: pictures in, vectors out, and a record of how."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn

from flowexp.records.score_name import ScoreName


class FeatureSet(dict[str, Tensor]):
    """The outputs of a network for a batch of pictures, by name: each (B, dim of the output) float32."""

    def rows(self, num: int) -> FeatureSet:
        """The first `num` pictures."""
        return self._each(lambda found: found[:num])

    def with_nan(self, bad: Tensor) -> FeatureSet:
        """NaN for the pictures where `bad` (B,) holds: in uint8 a sample that diverged looks like any other."""
        return self._each(lambda found: found.masked_fill(bad.to(found.device)[:, None], torch.nan))

    def _each(self, change: Callable[[Tensor], Tensor]) -> FeatureSet:
        return FeatureSet({name: change(found) for name, found in self.items()})


class FeatureNet(nn.Module, ABC):
    """A frozen network with a `name`, `dim`, the length of its feature vectors, and the `outputs` that it offers.

    A subclass gives `features` and `protocol`, and ends its __init__ with `freeze`. One that offers more than
    "features" names its `outputs`, their `dims`, and gives all of them from one pass in `read`.
    """

    name: str
    dim: int
    outputs: tuple[str, ...] = ("features",)

    @abstractmethod
    def features(self, images: Tensor) -> Tensor:
        """Features (B, dim) of colour pictures, uint8 (B, 3, H, W)."""

    @abstractmethod
    def protocol(self) -> dict[str, Any]:
        """Everything that decides the features of a picture: weights, resizing, normalisation."""

    @property
    def dims(self) -> dict[str, int]:
        """The length of each output's vectors."""
        return {"features": self.dim}

    def read(self, images: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        """The `wanted` outputs of colour pictures, uint8 (B, 3, H, W), from one pass."""
        return {"features": self.features(images)}

    def key(self, score: str) -> str:
        """The key of a `score`, such as "frechet" or "precision". Only Inception's scores go by the papers' names."""
        if score == "frechet":
            return self.distance_name
        return str(ScoreName(score, self.name))

    @property
    def distance_name(self) -> str:
        """The key of a Frechet distance between these features. Only that of Inception's may be called FID."""
        return str(ScoreName("frechet", self.name))

    def freeze(self) -> None:
        """Takes the weights out of training and puts them in the layout that convolutions are fastest in."""
        self.requires_grad_(False)
        self.to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> Self:
        """Stays in eval mode for any `mode`: its batch statistics are part of the measure."""
        return super().train(False)

    def forward(self, images: Tensor) -> Tensor:
        """Features (B, dim) float32 of pictures, uint8 (B, C, H, W) with C = 1 (grey, repeated) or 3.

        Raises:
            ValueError: another dtype or shape. Floats are refused, since their range could only be guessed.
        """
        return self.extract(images)["features"]

    def extract(self, images: Tensor, wanted: Sequence[str] = ("features",)) -> FeatureSet:
        """The `wanted` outputs (B, D) of the same pictures, uint8 (B, 1 or 3, H, W), from one pass.

        Raises:
            ValueError: as `forward`, or an output that this network does not offer.
        """
        missing = sorted(set(wanted) - set(self.outputs))
        if missing:
            raise ValueError(
                f"{self.name} offers {', '.join(self.outputs)}, got {', '.join(missing)}: choose encoder=inception, "
                "which offers features, spatial and logits"
            )
        rgb = as_rgb(images)
        with torch.inference_mode(), torch.autocast(images.device.type, enabled=False):
            found = self.read(rgb, wanted)
        return FeatureSet({name: found[name].clone() for name in wanted})  # ordinary tensors, which can be trained on


def as_rgb(images: Tensor) -> Tensor:
    """Pictures, uint8 (B, 1 or 3, H, W), as colour pictures (B, 3, H, W). Raises ValueError for anything else."""
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"an encoder needs uint8 pictures of shape (B, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}: "
            "convert samples with flowexp.data.to_uint8"
        )
    return images.expand(-1, 3, -1, -1)
