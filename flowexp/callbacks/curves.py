"""Monitors of the diagnostics along the noise level: when they run, on which images, and how they are drawn."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

from torch import Tensor

from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.sharing import collect, share
from flowexp.data import ImageDataModule
from flowexp.diagnostics import (
    Curve,
    LevelPoint,
    cross_terms,
    encoder_jacobian,
    gradient_share,
    integration_lag,
    measure_condition,
    semantic_subspace,
    tapped_encoder,
    velocity_norms,
)
from flowexp.figures import plot_curves
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement
from flowexp.time import as_noise_level

LEVELS = (0.005, 0.01, 0.02, 0.04, 0.07, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, 0.99)


class CurveMonitor(Monitor):
    """A diagnostic of held-out images at some noise levels, which processes share.

    Arguments:
        levels: noise levels, or numbers of 1000.
        num_images: test images, a fixed random subset.
        batch_size: images that go through the network at once.
    """

    name: ClassVar[str]
    drawn: ClassVar[tuple[str, ...]]  # fields of a point that get a panel
    told: ClassVar[tuple[tuple[str, str, str], ...]] = ()  # scalars: key, end ("data" or "noise"), field
    log_y: ClassVar[bool] = False

    def __init__(
        self,
        levels: Sequence[float] = LEVELS,
        num_images: int = 512,
        batch_size: int = 256,
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.levels = sorted({as_noise_level(level) for level in levels})
        if not self.levels or num_images < 2:
            raise ValueError(f"{self.name} needs a noise level and at least 2 images, got {self.levels}, {num_images}")
        self.num_images = num_images
        self.batch_size = batch_size
        self.found: Curve[Any] | None = None

    @abstractmethod
    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        """The diagnostic at `levels`."""

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        self.found = self._of_all_processes(module, datamodule, seed)
        ends = {"data": self.found.data_end, "noise": self.found.noise_end}
        scalars = {f"{self.name}/{key}": float(getattr(ends[end], field)) for key, end, field in self.told}
        rows = self.found.rows()
        figure = plot_curves(rows, "t", list(self.drawn), names={"t": "noise level t"}, log_y=self.log_y)
        return Measurement(self.name, scalars, rows, figure, protocol=self.protocol(datamodule, seed))

    def protocol(self, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        """What decides the curve beside the weights."""
        num = min(self.num_images, len(datamodule.test))
        return {"images": f"{num} test images of {datamodule.name}", "weights": "ema", "seed": seed}

    def images(self, datamodule: ImageDataModule) -> tuple[Tensor, Tensor]:
        """The images as stored, and their labels."""
        chosen = datamodule.test.subset(min(self.num_images, len(datamodule.test)))
        return chosen.images, chosen.labels

    def common(self, module: FlowMatching, datamodule: ImageDataModule) -> dict[str, Any]:
        """What every diagnostic takes."""
        return {"batch_size": self.batch_size, "device": module.device, "prepare": datamodule.to_data}

    def labels_for(self, module: FlowMatching, labels: Tensor) -> Tensor | None:
        """The labels that the network takes."""
        return labels if module.backbone.takes == "class" else None

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        own = self.curve(module, datamodule, share(self.levels), seed)
        points: dict[float, LevelPoint] = collect({point.t: point for point in own})
        return Curve(points.values())


class VelocityNorms(CurveMonitor):
    """|v| against |v*|, the noise's and the data's norm, the cosine and the deficit (VD Figs. 1 and 2)."""

    name = "velocity_norms"
    drawn = ("velocity", "target", "ratio", "cosine")
    told = (("deficit_at_noise", "noise", "deficit"), ("deficit_at_data", "data", "deficit"))

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, labels = self.images(datamodule)
        return velocity_norms(
            module.velocity_network, module.interpolant, images, levels, seed, self.labels_for(module, labels),
            **self.common(module, datamodule),
        )  # fmt: skip


class ConditionNumber(CurveMonitor):
    """The local condition number kappa_E of the target in closed form, and of the network as measured (LCF Prop. 1)."""

    name = "condition_number"
    drawn = ("noise_exact", "noise_target", "noise_network")
    told = (("demanded", "data", "noise_exact"), ("of_network", "data", "noise_network"))
    log_y = True

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, labels = self.images(datamodule)
        return measure_condition(
            module.velocity_network, module.interpolant, images, levels, seed, self.labels_for(module, labels),
            **self.common(module, datamodule),
        )  # fmt: skip


class GradientShare(CurveMonitor):
    """How much of the flow-matching loss's gradient each noise level has. Every process computes all levels."""

    name = "gradient_share"
    drawn = ("share", "along", "loss")
    told = (("at_data", "data", "share"),)

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        return self.curve(module, datamodule, self.levels, seed)

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, labels = self.images(datamodule)
        return gradient_share(
            module.velocity_network, module.backbone.parameters(), module.interpolant, images, levels, seed,
            self.labels_for(module, labels), **self.common(module, datamodule),
        )  # fmt: skip


class EncoderJacobian(CurveMonitor):
    """Gains of the tapped features along class means and along other directions, and |J|_F (LCF Fig. 9).

    Arguments:
        tap: block that is read, from 1; None is the backbone's default.
        num_probes: random directions per image and level; each costs two forward derivatives.
        others: those of CurveMonitor.
    """

    name = "jacobian"
    drawn = ("g_sem", "g_noise", "frobenius")
    told = (("ratio_at_data", "data", "ratio"),)

    def __init__(
        self, levels: Sequence[float] = LEVELS, num_images: int = 128, tap: int | None = None, num_probes: int = 4,
        **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(levels, num_images, **others)
        self.tap = tap
        self.num_probes = num_probes

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, _ = self.images(datamodule)
        train = datamodule.train.subset(min(5000, len(datamodule.train)))
        basis = semantic_subspace(train.images, train.labels, prepare=datamodule.to_data)
        return encoder_jacobian(
            tapped_encoder(module.backbone, self.tap), module.interpolant, images, levels, basis, seed,
            self.num_probes, **self.common(module, datamodule),
        )  # fmt: skip


class IntegrationLag(CurveMonitor):
    """FLD of sampler states beside that of the exact marginals at the same level, and the lag between (VD Fig. 3).

    Arguments:
        num_samples: samples that are followed, and images that make the marginals.
        num_images: test images: those of the marginals and, all others, the clean data.
        num_levels: of the levels that the sampler reaches.
        others: those of CurveMonitor.
    """

    name = "integration_lag"
    drawn = ("fld", "fld_marginal", "lag")
    told = (("excess_at_data", "data", "excess"),)

    def __init__(
        self, num_samples: int = 1000, num_images: int = 5000, num_levels: int = 12, max_dim: int | None = 128,
        **others: Any,
    ) -> None:  # fmt: skip
        super().__init__(num_images=num_images, **others)
        self.num_samples = num_samples
        self.num_levels = num_levels
        self.max_dim = max_dim

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        measurement = super().measure(module, datamodule, seed)
        assert self.found is not None
        worst = max(self.found, key=lambda point: abs(point.lag))
        measurement.scalars["integration_lag/largest"] = float(worst.lag)
        return measurement

    def protocol(self, datamodule: ImageDataModule, seed: int) -> dict[str, Any]:
        return super().protocol(datamodule, seed) | {"num_samples": self.num_samples, "max_dim": self.max_dim}

    def _of_all_processes(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Curve[Any]:
        return self.curve(module, datamodule, self.levels, seed)

    def curve(self, module: FlowMatching, datamodule: ImageDataModule, levels: list[float], seed: int) -> Curve[Any]:
        images, _ = self.images(datamodule)
        data = datamodule.to_data(images)
        return integration_lag(
            module.sampler, module.velocity_network, module.interpolant, data, self.num_samples, seed,
            module.labels_for(range(self.num_samples), seed), self.num_levels, self.max_dim, self.batch_size,
            module.device, guide=module.guide,
        )  # fmt: skip


class CrossTerms(Monitor):
    """How orthogonal data and noise are: what the paper's norms rest on (VD appendix D).

    Arguments:
        num_images: test images, a fixed random subset.
    """

    def __init__(self, num_images: int = 2000, every_n_steps: int | None = None, at_end: bool = True) -> None:
        super().__init__(every_n_steps, at_end)
        self.num_images = num_images

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        images = datamodule.test.subset(min(self.num_images, len(datamodule.test))).images
        found = cross_terms(images, seed, device=module.device, prepare=datamodule.to_data)
        scalars = {f"cross_terms/{name}": value for name, value in vars(found.relative).items()}
        protocol = {"images": f"{found.num_pairs} test images of {datamodule.name}", "seed": seed}
        return Measurement("cross_terms", scalars, found.rows(), protocol=protocol)
