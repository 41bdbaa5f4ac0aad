"""A monitor of a diagnostic along the noise level: its images, its picture, its numbers, and the levels' sharing."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from flowexp.data import ImageDataModule
from flowexp.flow.time import as_noise_level
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.diagnostics import Curve, LevelPoint
from flowexp.objectives import FlowMatching
from flowexp.records.figures import Panel, plot_panels
from flowexp.records.recording import Measurement
from flowexp.records.verdict import Verdict
from flowexp.training.parallel.work import collect, share

FEWEST_IMAGES = 16  # below that a standard error is no guide, and so there is no verdict
LEVELS = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class CurveMonitor(Monitor):
    """A diagnostic of held-out images at some noise levels, which processes share.

    A diagnostic of one's own is a subclass with a `name`, what to draw and `curve`; a yaml beside those in
    conf/callbacks gives it its settings. See docs/diagnostics/README.md.

    Arguments:
        levels: noise levels in [0, 1], from clean to noise.
        num_images: test images, a fixed random subset.
        batch_size: images that go through the network at once.
    """

    name: ClassVar[str]  # of its folder, its numbers and its section on the page
    about: ClassVar[str] = ""  # a sentence for the page: what the panels show, and in which unit
    panels: ClassVar[tuple[Panel, ...]]  # of the picture
    log_x: ClassVar[bool] = False  # whether the picture spreads the low noise levels
    reported: ClassVar[tuple[tuple[str, str, str], ...]] = ()  # scalars: key, end ("data" or "noise"), field
    fewest_images: ClassVar[int] = 0  # for a verdict
    maps: ClassVar[tuple[tuple[str, str], ...]] = ()  # heat maps over (step, t): field, what its colours mean

    def __init__(
        self,
        levels: Sequence[float] = LEVELS,
        num_images: int = 512,
        batch_size: int = 256,
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.levels = sorted({as_noise_level(level, f"each of callbacks.{self.name}.levels") for level in levels})
        if not self.levels or num_images < 2:
            raise ValueError(f"{self.name} needs a noise level and at least 2 images, got {self.levels}, {num_images}")
        if batch_size < 1:
            raise ValueError(f"callbacks.{self.name}.batch_size must be at least 1, got {batch_size}")
        self.num_images = num_images
        self.batch_size = batch_size

    @abstractmethod
    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        """The diagnostic at `levels`."""

    def verdicts(self, curve: Curve[Any]) -> Sequence[Verdict | str]:
        """What the curve shows; a plain sentence will do, and counts as a finding."""
        return []

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        found = self._of_all_processes(module, datamodule, seed)
        rows = self.rows(found)
        return Measurement(
            self.name,
            self.scalars(found),
            rows,
            plot_panels(rows, "t", self.panels, "noise level t", self.log_x),
            protocol=self.protocol(module, datamodule, seed),
            about=self.about,
            verdicts=self._judged(found, self.counted(datamodule)),
            maps=dict(self.maps),
        )

    def counted(self, datamodule: ImageDataModule) -> int:
        """How many images, or samples, the curve is of."""
        return min(self.num_images, len(datamodule.test))

    def _judged(self, curve: Curve[Any], num: int) -> Sequence[Verdict | str]:
        verdicts = self.verdicts(curve)
        if verdicts and num < self.fewest_images:
            reason = f"{num} images are too few, {self.fewest_images} are needed; raise num_images"
            return [Verdict(self.name, "undecided", reason, head="no verdict")]
        return verdicts

    def rows(self, curve: Curve[Any]) -> list[dict[str, Any]]:
        """The table."""
        return curve.rows()

    def scalar_names(self) -> tuple[str, ...] | None:
        is_default = type(self).scalars is CurveMonitor.scalars
        return tuple(f"{self.name}/{key}" for key, _, _ in self.reported) if is_default else None

    def scalars(self, curve: Curve[Any]) -> dict[str, float]:
        """The numbers that loggers show."""
        ends = {"data": curve.data_end, "noise": curve.noise_end}
        return {f"{self.name}/{key}": float(getattr(ends[end], field)) for key, end, field in self.reported}

    def protocol(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        """What decides the curve beside the weights."""
        num = min(self.num_images, len(datamodule.test))
        return {"images": f"{num} test images of {datamodule.name}", "weights": module.weights_name, "seed": seed}

    def images(self, datamodule: ImageDataModule) -> tuple[Tensor, Tensor]:
        """The images as stored, (N, C, H, W), and their labels (N,)."""
        chosen = datamodule.test.subset(min(self.num_images, len(datamodule.test)))
        return chosen.images, chosen.labels

    def feed(self, module: FlowMatching, datamodule: ImageDataModule) -> dict[str, Any]:
        """How the images reach the network, as every diagnostic takes it."""
        return {"batch_size": self.batch_size, "device": module.device, "prepare": datamodule.to_data}

    def seen(self, module: FlowMatching, datamodule: ImageDataModule) -> dict[str, Any]:
        """The network, its path, the images and the labels that it takes, as diagnostics of a velocity take them."""
        images, labels = self.images(datamodule)
        taken = labels if module.backbone.takes == "class" else None
        parts = {"network": module.velocity_network, "interpolant": module.interpolant, "images": images}
        return {**parts, "labels": taken, **self.feed(module, datamodule)}

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        own = self.curve(module, datamodule, share(self.levels), seed)
        points: dict[float, LevelPoint] = collect({point.t: point for point in own})
        return Curve(points.values())
