"""How large the network, the batches and the measurements are: a real size for each kind of device, and a quick one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from flowexp.backbones import Backbone, create_backbone
from flowexp.building import resolve_precision
from flowexp.callbacks.precision import autocast

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Size:
    """What every case is given. The defaults are the real size for a CPU: a step of a second or two.

    Arguments:
        device: where everything runs.
        backbone, overrides: name of the network, and changes to it.
        resolution, channels: of the images.
        batch_size: images in a training step.
        num_images: training images in memory, as many as in CIFAR-10.
        rounds: rounds of each comparison; those of long rounds take half.
        steps: training steps that are timed as one.
        fit_steps: the same in one fit by Lightning.
        solver_steps, sample_batch_size: of the solvers.
        probe_images, probe_epochs: training images of the linear probe, four to one test image, and its epochs.
        fit_images: images whose cached features are fitted.
        compiled: whether torch.compile is measured, which takes half a minute before the first step.
        judged: whether the promises, made for real sizes, are held against the measured ratios.
    """

    device: torch.device = CPU
    backbone: str = "dit_s2"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    resolution: int = 16
    channels: int = 3
    batch_size: int = 64
    num_images: int = 50_000
    rounds: int = 8
    steps: int = 1
    fit_steps: int = 2
    solver_steps: int = 20
    sample_batch_size: int = 8
    probe_images: int = 64
    probe_epochs: int = 15
    fit_images: int = 4096
    compiled: bool = True
    judged: bool = True

    @property
    def few_rounds(self) -> int:
        """Rounds of a comparison whose rounds are long."""
        return max(1, self.rounds // 2)

    @property
    def precision(self) -> str:
        """What `trainer.precision=auto` means on this device."""
        return resolve_precision("auto", self.device.type)

    def autocast(self, precision: str | None = None) -> torch.autocast:
        """A context in which networks compute in `precision`, by default this size's."""
        return autocast(precision or self.precision, self.device)

    def create_network(self) -> Backbone:
        """An unconditional network, freshly initialised, the same at every call."""
        torch.manual_seed(0)
        network = create_backbone(self.backbone, resolution=self.resolution, channels=self.channels, **self.overrides)
        return network.to(self.device)

    def __str__(self) -> str:
        return (
            f"{self.backbone} on {self.channels} x {self.resolution} x {self.resolution}, batch {self.batch_size}, "
            f"{self.precision}, {self.rounds} rounds"
        )


def real_size(device: torch.device) -> Size:
    """Blocks of 12 x 384 x 6 heads: 64 tokens on a CPU, 256 tokens and larger batches on a GPU."""
    if device.type == "cpu":
        return Size()
    return Size(
        device=device,
        resolution=32,
        batch_size=256,
        steps=10,
        fit_steps=50,
        sample_batch_size=256,
        probe_images=2048,
        fit_images=50_000,
    )


def quick_size(device: torch.device) -> Size:
    """A quarter of the width, to see that everything runs: what is fixed per step weighs more than in reality."""
    return Size(
        device=device,
        backbone="dit_tiny2",
        batch_size=16,
        num_images=4096,
        rounds=4,
        sample_batch_size=8,
        probe_images=32,
        fit_images=512,
        compiled=False,
        judged=False,
    )
