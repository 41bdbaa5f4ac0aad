"""How large the network, the batches and the measurements are: a budget each for a CPU and a GPU, and a smoke test."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from flowexp.backbones import Backbone, create_backbone
from flowexp.cli.assembly.hardware import resolve_device, resolve_precision
from flowexp.measuring.callbacks.autocast import autocast

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
        latents, depth: shape of a batch of latents, and the blocks of the network that is compared with SiT's.
        rounds: rounds of every comparison; None leaves each case its own number.
        most_rounds: no case has more, but where `rounds` says so.
        steps: training steps that are timed as one.
        turn_steps: the same where a fit by Lightning takes turns with a bare loop.
        solver_steps, sample_batch_size: of the solvers.
        probe_images, probe_epochs: training images of the linear probe, four to one test image or all 360, and epochs.
        feature_dim: length of the features of a Frechet distance, of twice as many images.
        num_latents: of the larger set of latents, as many as ImageNet has pictures.
        num_samples: whose peak of memory is compared with that of 500.
        fit_images: images whose cached features are fitted.
        networks: names of the networks whose use of the device is measured, each with its batch of latents.
        network_depth: their number of blocks; None leaves each its own.
        product: rows and columns of the matrices whose product stands for an unknown peak.
        peak: FLOP per second of the device; None looks it up.
        compiled: whether torch.compile is measured, which takes about a minute before the first step.
        judged: whether the promises, made for real sizes, are held against the measured ratios.
    """

    device: torch.device = CPU
    backbone: str = "dit_s2"
    overrides: Mapping[str, Any] = field(default_factory=dict)
    resolution: int = 16
    channels: int = 3
    batch_size: int = 64
    num_images: int = 50_000
    latents: tuple[int, int, int, int] = (16, 4, 32, 32)
    depth: int = 12
    rounds: int | None = None
    most_rounds: int = 100
    steps: int = 1
    turn_steps: int = 2
    solver_steps: int = 20
    sample_batch_size: int = 8
    probe_images: int = 64
    probe_epochs: int = 15
    feature_dim: int = 1024
    num_latents: int = 1_281_167
    num_samples: int = 50_000
    fit_images: int = 4096
    networks: Mapping[str, int] = field(default_factory=lambda: {"sit_s2": 16})
    network_depth: int | None = None
    product: int = 2048
    peak: float | None = None
    compiled: bool = True
    judged: bool = True

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
            f"{self.precision}"
        )


def cpu_size() -> Size:
    """LCF's network for CIFAR-10 (12 blocks of width 384, 6 heads) on pictures of 16 x 16, 64 a step."""
    return Size()


def gpu_size() -> Size:
    """The same on pictures of 32 x 32, 256 a step, as LCF trains it; ten rounds at most, the noise being less there.

    Raises ValueError without an accelerator.
    """
    device = resolve_device("auto")
    if device == CPU:
        raise ValueError(
            "budget=gpu needs an accelerator, and PyTorch finds none: take budget=cpu, or for a miniature device=cpu"
        )
    return Size(
        device=device,
        most_rounds=10,
        resolution=32,
        batch_size=256,
        latents=(256, 4, 32, 32),
        steps=10,
        turn_steps=50,
        sample_batch_size=256,
        probe_images=2048,
        fit_images=50_000,
        networks={"sit_s2": 256, "sit_xl2": 64},
        product=8192,
    )


def smoke_size() -> Size:
    """Three blocks of 32, one round: shows that everything runs. What is fixed per step weighs more than in reality."""
    return Size(
        backbone="dit_nano2",
        overrides={"depth": 3},
        resolution=8,
        batch_size=4,
        num_images=64,
        latents=(2, 4, 8, 8),
        depth=1,
        rounds=1,
        solver_steps=2,
        sample_batch_size=2,
        probe_images=8,
        probe_epochs=1,
        feature_dim=16,
        num_latents=20_000,
        num_samples=1000,
        fit_images=200,
        networks={"sit_s2": 2, "sit_xl2": 1},
        network_depth=1,
        product=512,
        compiled=False,
        judged=False,
    )


BUDGETS: dict[str, Callable[[], Size]] = {"smoke": smoke_size, "cpu": cpu_size, "gpu": gpu_size}
