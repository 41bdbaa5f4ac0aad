"""Calibrates SSC for a network, and measures the proposal beside the controls that could refute it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from flowexp.callbacks.curves import LEVELS
from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.precision import autocast, check_precision
from flowexp.callbacks.sampling_protocol import sampling_protocol
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
from flowexp.diagnostics.verdict import ssc_verdict
from flowexp.encoders import FeatureNet, create_encoder
from flowexp.figures import COLOURS
from flowexp.metrics import FeatureCollector, Moments
from flowexp.metrics.collecting import Needs
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement
from flowexp.sampling import Sampler

FEWEST_SAMPLES = 16  # below that a bootstrap's interval says nothing
LAG_PART = 0.25  # of the budget
ABOUT = (
    "SSC's proposed scale beside the controls that could refute it: no SSC (plain), the paper's 1.1 to 1 (vd), late "
    "injection (1 to 1.1), constant scales, and the constant with the proposal's mean. Bars are 95 % intervals of the "
    "difference from plain in Fréchet distance, over the same noise; left of 0 is better."
)


class SSCCalibration(Monitor):
    """Proposes s0, s1 and a profile from the measured deficit and lag, and samples with it and with its controls.

    The controls are no SSC, the paper's 1.1 -> 1, late injection, constant scales, and a constant with the proposal's
    mean, each with every solver and number of steps given. All samplers share their noise, so that differences are
    paired; intervals are bootstrapped over samples. Distances are taken between features projected to `max_dim`
    numbers: good for comparing these samplers, and not to be compared with any other distance.

    Every sampler that the proposal or a control makes twice is drawn once.

    Arguments:
        encoder: the feature network, or its name, or its name with options as a mapping.
        num_samples: samples of each sampler, as many as there are rows of features.
        budget: network calls, one for each sample and step, that may be spent, a quarter of them on
            the lag; `num_samples` is lowered to what fits. None is no limit.
        solvers, num_steps: what is sampled with.
        constants: constant scales among the controls.
        num_images: test images of the deficit, the lag and the reference.
        max_dim: numbers that features are projected to; a quarter of the samples where that is less.
        num_resamples: of the bootstrap.
        batch_size, precision: of sampling.

    Raises:
        ValueError: a budget for fewer than 16 samples of each sampler.
    """

    def __init__(
        self,
        encoder: str | FeatureNet | dict[str, Any] = "efficientnet_lite",
        num_samples: int = 1000,
        budget: int | None = None,
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
        self.budget = budget
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
        num = self._affordable(samplers)
        max_dim = max(1, min(self.max_dim, num // 4))
        features = self._all_features(module, datamodule, samplers, num, max_dim, seed)
        reference = self._reference(module, datamodule, max_dim, seed)
        scores = compare_samplers(features, reference, plain_of, self.num_resamples, seed=seed)
        rows = [_row(score, samplers[score.name]) for score in scores]
        return Measurement(
            "ssc_calibration",
            {"ssc_calibration/s0": proposal.s0, "ssc_calibration/s1": proposal.s1},
            rows,
            _draw(rows),
            protocol=self._protocol(module, datamodule, proposal, num, max_dim, seed),
            about=ABOUT,
            verdicts=ssc_verdict(proposal, scores),
        )

    def _affordable(self, samplers: Mapping[str, Sampler]) -> int:
        """How many samples of each sampler the budget pays for."""
        if self.budget is None:
            return self.num_samples
        calls = sum(sampler.integrator.num_steps for sampler in _different(samplers).values())
        num = min(self.num_samples, int((1 - LAG_PART) * self.budget) // calls)
        if num < FEWEST_SAMPLES:
            needed = -int(-FEWEST_SAMPLES * calls // (1 - LAG_PART))
            raise ValueError(
                f"budget={self.budget} pays for {num} samples of each sampler, and intervals need {FEWEST_SAMPLES}: "
                f"raise it to {needed}, or lower num_steps or the number of constants"
            )
        return num

    def _lag_samples(self, module: FlowMatching, num_images: int) -> int:
        """How many samples are followed for the lag: at most half of the images, and a quarter of the budget."""
        paid = (
            self.num_samples
            if self.budget is None
            else int(LAG_PART * self.budget) // module.sampler.integrator.num_steps
        )
        return max(2, min(self.num_samples, num_images // 2, paid))

    def _protocol(
        self,
        module: FlowMatching,
        datamodule: ImageDataModule,
        proposal: SSCProposal,
        num: int,
        max_dim: int,
        seed: int,
    ) -> dict[str, Any]:
        return {
            "proposal": proposal.rows()[0],
            "num_samples": num,
            "budget": self.budget,
            "features": self.encoder.protocol() | {"projected_to": max_dim},
            "reference": f"{min(self.num_images, len(datamodule.test))} test images of {datamodule.name}",
            "resamples": self.num_resamples,
            "sampler": sampling_protocol(module),
            "precision": self.precision,
            "weights": "ema",
            "seed": seed,
        }

    def _proposal(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> SSCProposal:
        chosen = datamodule.test.subset(min(self.num_images, len(datamodule.test)))
        labels = chosen.labels if module.backbone.takes == "class" else None
        images = datamodule.to_data(chosen.images)
        norms = velocity_norms(
            module.velocity_network, module.interpolant, images[:512], LEVELS, seed,
            labels=None if labels is None else labels[:512], device=module.device,
        )  # fmt: skip
        num = self._lag_samples(module, len(images))
        lag = integration_lag(
            _plain(module.sampler), module.velocity_network, module.interpolant, images, num, seed,
            module.labels_for(range(num), seed), max_dim=self.max_dim, device=module.device, guide=module.guide,
        )  # fmt: skip
        return calibrate_ssc(norms, lag)

    def _all_features(
        self,
        module: FlowMatching,
        datamodule: ImageDataModule,
        samplers: Mapping[str, Sampler],
        num: int,
        max_dim: int,
        seed: int,
    ) -> dict[str, Tensor]:
        """Projected features (num, max_dim) by sampler, those of equal samplers drawn once; one bar over all calls."""
        project, drawn = create_projection(self.encoder.dim, max_dim, seed), dict[str, Tensor]()
        own = len(share(range(num)))
        total = own * sum(sampler.integrator.num_steps for sampler in _different(samplers).values())
        hidden = None if rank_and_world_size()[0] == 0 else True
        with tqdm(total=total, unit="call", unit_scale=True, leave=False, disable=hidden) as bar:
            for name, sampler in _different(samplers).items():
                bar.set_description(name)
                drawn[_identity(sampler)] = project(self._features(module, datamodule, sampler, num, bar, seed))
        return {name: drawn[_identity(sampler)] for name, sampler in samplers.items()}

    def _features(
        self, module: FlowMatching, datamodule: ImageDataModule, sampler: Sampler, num: int, bar: Any, seed: int
    ) -> Tensor:
        """Features (num, D) of a sampler's samples, on every process."""
        before, module.sampler = module.sampler, sampler
        try:
            collector = FeatureCollector(num, self.encoder.dims, Needs(features=True))
            indices, own = share(range(num)), num_own(num)
            for start in range(0, len(indices), self.batch_size):
                part = indices[start : start + self.batch_size]
                with autocast(self.precision, module.device):
                    samples = module.sample(part, seed)
                kept = max(0, own - start)
                found = self.encoder.extract(datamodule.to_pictures(samples.images), ("features",)).rows(kept)
                collector.update(found, torch.tensor(part[:kept], dtype=torch.int64))
                bar.update(len(part) * sampler.integrator.num_steps)
        finally:
            module.sampler = before
        features = collector.compute().features
        assert features is not None
        return features

    def _reference(self, module: FlowMatching, datamodule: ImageDataModule, max_dim: int, seed: int) -> Moments:
        pictures = datamodule.reference_pictures("test")
        pictures = pictures.subset(min(self.num_images, len(pictures)))
        projection, parts = create_projection(self.encoder.dim, max_dim, seed), []
        for rows in torch.arange(len(pictures)).split(self.batch_size):
            parts.append(projection(self.encoder(pictures.select(rows).images.to(module.device)).cpu()))
        return _moments(torch.cat(parts))


def _moments(features: Tensor) -> Moments:
    wide = features.double()
    return Moments(wide.mean(dim=0), torch.cov(wide.T), len(wide))


def _create(encoder: str | dict[str, Any]) -> FeatureNet:
    return create_encoder(encoder) if isinstance(encoder, str) else create_encoder(**encoder)


def _different(samplers: Mapping[str, Sampler]) -> dict[str, Sampler]:
    """The samplers without those that are another one's equal, such as a proposal that proposes no correction."""
    first: dict[str, str] = {}
    for name, sampler in samplers.items():
        first.setdefault(_identity(sampler), name)
    return {name: samplers[name] for name in first.values()}


def _identity(sampler: Sampler) -> str:
    """Equal for samplers that draw the same samples: a constant scale has no shape."""
    settings = sampler.protocol() | ({"profile": "constant"} if sampler.s0 == sampler.s1 else {})
    return json.dumps(settings, sort_keys=True, default=str)


def _plain(sampler: Sampler) -> Sampler:
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
            colour = COLOURS[0] if row["better"] else "0.45"
            axes.plot([row["low"], row["high"]], [place, place], color=colour, linewidth=2)
            axes.plot(row["difference"], place, "o", color=colour, markersize=4)
        axes.axvline(0, color="black", linewidth=0.6)
        axes.set_title(f"{panel[0].replace('_', '-')}, {panel[1]} steps", loc="left", fontsize="medium")
        axes.set_xlabel("Fréchet distance − that of plain")
        axes.grid(axis="x", alpha=0.25, linewidth=0.6)
        axes.set_yticks(range(len(own)), [row["scale"].replace("_", " ") for row in own])
        axes.set_ylim(len(own) - 0.5, -0.5)  # the first row on top
        axes.spines[["top", "right"]].set_visible(False)
    return figure
