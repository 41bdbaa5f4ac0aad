"""Calibrates SSC for a network, and measures the proposal beside the controls that could refute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flowexp.callbacks.curves import LEVELS
from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.precision import autocast, check_precision
from flowexp.callbacks.sharing import num_own, rank_and_world_size, share
from flowexp.data import ImageDataModule
from flowexp.diagnostics import (
    SamplerScore,
    SSCProposal,
    calibrate_ssc,
    compare_samplers,
    create_projection,
    integration_lag,
    plain_of,
    ssc_controls,
    velocity_norms,
)
from flowexp.encoders import FeatureNet, create_encoder
from flowexp.metrics import FeatureCollector, Moments
from flowexp.metrics.collecting import Needs
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement
from flowexp.sampling import Sampler


class SSCCalibration(Monitor):
    """Proposes s0, s1 and a profile from the measured deficit and lag, and samples with it and with its controls.

    The controls are no SSC, the paper's 1.1 -> 1, late injection, constant scales, and a constant with the proposal's
    mean, each with every solver and number of steps given. All samplers share their noise, so that differences are
    paired; intervals are bootstrapped over samples. Distances are taken between features projected to `max_dim`
    numbers: good for comparing these samplers, and not to be compared with any other distance.

    Arguments:
        encoder: the feature network, or its name, or its name with options as a mapping.
        num_samples: samples of each sampler, as many as there are rows of features.
        solvers, num_steps: what is sampled with; their product is the budget of network calls.
        constants: constant scales among the controls.
        num_images: test images of the deficit, the lag and the reference.
        max_dim: numbers that features are projected to.
        num_resamples: of the bootstrap.
        batch_size, precision: of sampling.
    """

    def __init__(
        self,
        encoder: str | FeatureNet | dict[str, Any] = "efficientnet_lite",
        num_samples: int = 1000,
        solvers: Sequence[str] = ("euler", "euler_maruyama"),
        num_steps: Sequence[int] = (50, 250),
        constants: Sequence[float] = (1.02, 1.05, 1.08),
        num_images: int = 5000,
        max_dim: int = 128,
        num_resamples: int = 200,
        batch_size: int = 250,
        precision: str = "32-true",
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.encoder = encoder if isinstance(encoder, FeatureNet) else _create(encoder)
        self.num_samples = num_samples
        self.solvers, self.num_steps, self.constants = tuple(solvers), tuple(num_steps), tuple(constants)
        self.num_images = num_images
        self.max_dim = max_dim
        self.num_resamples = num_resamples
        self.batch_size = batch_size
        self.precision = check_precision(precision)

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        self.encoder.to(module.device)
        proposal = self._proposal(module, datamodule, seed)
        samplers = ssc_controls(module.sampler, proposal, self.constants, self.solvers, self.num_steps)
        features = {name: self._features(module, datamodule, sampler, name, seed) for name, sampler in samplers.items()}
        scores = compare_samplers(
            features, self._reference(module, datamodule, seed), plain_of, self.num_resamples, seed=seed
        )
        scalars = {"ssc/s0": proposal.s0, "ssc/s1": proposal.s1}
        rows = [_row(score, samplers[score.name]) for score in scores]
        protocol = {
            "proposal": proposal.rows()[0] if proposal.rows() else {},
            "profile": proposal.profile,
            "source": proposal.source,
            "num_samples": self.num_samples,
            "features": self.encoder.protocol() | {"projected_to": self.max_dim},
            "reference": f"{min(self.num_images, len(datamodule.test))} test images of {datamodule.name}",
            "resamples": self.num_resamples,
            "precision": self.precision,
            "weights": "ema",
            "seed": seed,
        }
        return Measurement("ssc_calibration", scalars, rows, _draw(rows), protocol=protocol)

    def _proposal(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> SSCProposal:
        chosen = datamodule.test.subset(min(self.num_images, len(datamodule.test)))
        labels = chosen.labels if module.backbone.takes == "class" else None
        images = datamodule.to_data(chosen.images)
        norms = velocity_norms(
            module.velocity_network, module.interpolant, images[:512], LEVELS, seed,
            None if labels is None else labels[:512], device=module.device,
        )  # fmt: skip
        num = min(self.num_samples, len(images) // 2)
        lag = integration_lag(
            _plain(module.sampler), module.velocity_network, module.interpolant, images, num, seed,
            module.labels_for(range(num), seed), max_dim=self.max_dim, device=module.device,
        )  # fmt: skip
        return calibrate_ssc(norms, lag)

    def _features(
        self, module: FlowMatching, datamodule: ImageDataModule, sampler: Sampler, name: str, seed: int
    ) -> Tensor:
        """Projected features (num_samples, max_dim) of a sampler's samples, on every process."""
        before, module.sampler = module.sampler, sampler
        try:
            collector = FeatureCollector(self.num_samples, self.encoder.dims, Needs(features=True))
            indices, own = share(range(self.num_samples)), num_own(self.num_samples)
            hidden = None if rank_and_world_size()[0] == 0 else True
            for start in tqdm(
                range(0, len(indices), self.batch_size), desc=name, unit="batch", leave=False, disable=hidden
            ):
                part = indices[start : start + self.batch_size]
                with autocast(self.precision, module.device):
                    samples = module.sample(part, seed)
                num = max(0, own - start)
                found = self.encoder.extract(datamodule.to_pictures(samples.images), ("features",)).rows(num)
                collector.update(found, torch.tensor(part[:num], dtype=torch.int64))
        finally:
            module.sampler = before
        features = collector.compute().features
        assert features is not None
        return create_projection(self.encoder.dim, self.max_dim, seed)(features)

    def _reference(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Moments:
        pictures = datamodule.reference_pictures("test")
        pictures = pictures.subset(min(self.num_images, len(pictures)))
        projection, parts = create_projection(self.encoder.dim, self.max_dim, seed), []
        for rows in torch.arange(len(pictures)).split(self.batch_size):
            parts.append(projection(self.encoder(pictures.select(rows).images.to(module.device)).cpu()))
        return _moments(torch.cat(parts))


def _moments(features: Tensor) -> Moments:
    wide = features.double()
    return Moments(wide.mean(dim=0), torch.cov(wide.T), len(wide))


def _create(encoder: str | dict[str, Any]) -> FeatureNet:
    return create_encoder(encoder) if isinstance(encoder, str) else create_encoder(**encoder)


def _plain(sampler: Sampler) -> Sampler:
    from dataclasses import replace

    return replace(sampler, s0=1.0, s1=1.0)


def _row(score: SamplerScore, sampler: Sampler) -> dict[str, Any]:
    solver, steps, scale = score.name.split("-", 2)
    return {
        "solver": solver,
        "num_steps": int(steps),
        "scale": scale,
        "s0": sampler.s0,
        "s1": sampler.s1,
        "profile": sampler.protocol()["profile"],
        "distance": score.distance,
        "difference": score.difference,
        "low": score.low,
        "high": score.high,
        "better": score.better,
    }


def _draw(rows: list[dict[str, Any]]) -> Any:
    """Differences from the same solver and steps without SSC, with their intervals; left of zero is better."""
    from matplotlib.figure import Figure

    panels = list(dict.fromkeys((row["solver"], row["num_steps"]) for row in rows))
    figure = Figure(figsize=(3.6 * len(panels), 3.6), dpi=150, layout="constrained")
    for axes, panel in zip(figure.subplots(1, len(panels), squeeze=False, sharey=True)[0], panels, strict=True):
        own = [row for row in rows if (row["solver"], row["num_steps"]) == panel]
        for place, row in enumerate(own):
            colour = "#0072b2" if row["better"] else "#666666"
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(row["difference"], place, "o", color=colour, markersize=4)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set(title=f"{panel[0]}, {panel[1]} steps", xlabel="distance less that of plain")
        axes.set_yticks(range(len(own)), [row["scale"] for row in own])
        axes.spines[["top", "right"]].set_visible(False)
    return figure
