"""Calibrates SSC for a network, and measures the proposal beside the controls that could refute it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from flowexp.data import ImageDataModule
from flowexp.data.sets.identity import identity_of
from flowexp.flow.sampler import Sampler
from flowexp.integrations.encoders import FeatureNet, as_encoder
from flowexp.measuring.callbacks.autocast import Precision, check_precision
from flowexp.measuring.callbacks.curve_monitor import LEVELS
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.nfe_progress import CallBar, counting, network_calls, rows_per_call
from flowexp.measuring.callbacks.paired_features import PairedFeatures, different
from flowexp.measuring.callbacks.resumable import Kept
from flowexp.measuring.callbacks.sampling_protocol import sampling_protocol
from flowexp.measuring.callbacks.ssc_table import plot_differences, score_row
from flowexp.measuring.diagnostics import (
    ControlledSampler,
    SSCProposal,
    calibrate_ssc,
    compare_samplers,
    integration_lag,
    ssc_controls,
    velocity_norms,
)
from flowexp.measuring.diagnostics.integration_lag import RESAMPLES
from flowexp.measuring.diagnostics.verdict import ssc_verdict
from flowexp.objectives import FlowMatching
from flowexp.records.files import fingerprint
from flowexp.records.recording import Measurement
from flowexp.training.parallel.work import rank_and_world_size

FEWEST_SAMPLES = 16  # below that a bootstrap's interval is no guide
DEFICIT_PART, LAG_PART, SAMPLES_PART = 0.05, 0.2, 0.75  # of the budget
MOST_DEFICIT_IMAGES = 512
KEPT = "ssc_features"  # folder of a run
MOST = SSCProposal(1.0123, 1.0, "linear", "lag", 1.0, 1.0, 1.0, 1.0, 0.0)  # one that no control is equal to
ABOUT = (
    "SSC's proposed scale beside the controls that could refute it: none, the paper's 1.1 to 1, late injection (1 to "
    "1.1), constant scales, and the constant with the proposal's mean; ODE and SDE, few steps and many. Differences in "
    "Fréchet distance from none, over the same noise, with 95 % intervals: blue is surely better, an orange square "
    "surely worse, a hollow point may be chance."
)


class SSCCalibration(Monitor):
    """Proposes s0, s1 and a profile from the measured deficit and lag, and samples with it and with its controls.

    The controls are no SSC, the paper's 1.1 -> 1, late injection, constant scales, and a constant with the proposal's
    mean, each with every solver and number of steps given. All samplers share their noise, so that differences are
    paired; intervals are bootstrapped over samples. Distances are taken between features projected to `max_dim`
    numbers: good for comparing these samplers, and not to be compared with any other distance.

    Every sampler that the proposal or a control makes twice is drawn once. Features are stored in the run's folder
    batch by batch: a stopped calibration continues where it was, and one with further controls draws those alone.

    Arguments:
        encoder: the feature network, or its name, or its name with options as a mapping.
        num_samples: samples of each sampler, as many as there are rows of features.
        budget: network calls, one for each sample and step, that may be spent: a twentieth on the deficit, a fifth on
            the lag, the rest on samples; `num_samples` is lowered to what fits. None is no limit.
        solvers, num_steps: what is sampled with.
        constants: constant scales among the controls.
        num_images: test images of the deficit, the lag and the reference.
        max_dim: numbers that features are projected to; a quarter of the samples where that is less.
        num_resamples: of the bootstrap.
        batch_size, precision: of sampling.
        kept_in: folder of the run, whose ssc_features stores the features; None stores nothing.

    Raises:
        ValueError: no solver, number of steps or constant, and fewer than 16 samples of each sampler, or a budget for
            fewer.
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
        precision: Precision = "32-true",
        kept_in: str | None = None,
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        if not (solvers and num_steps and constants):
            raise ValueError(
                "SSC is calibrated beside its controls: give at least one of each of solvers, num_steps and constants, "
                f"got {list(solvers)}, {list(num_steps)} and {list(constants)}"
            )
        if num_samples < FEWEST_SAMPLES:
            raise ValueError(f"num_samples must be at least {FEWEST_SAMPLES} for intervals, got {num_samples}")
        self.encoder = as_encoder(encoder)
        self.num_samples = num_samples
        self.budget = budget
        self.solvers, self.num_steps, self.constants = tuple(solvers), tuple(num_steps), tuple(constants)
        self.num_images = num_images
        self.max_dim = max_dim
        self.num_resamples = num_resamples
        self.batch_size = batch_size
        self.precision = check_precision(precision)
        self.kept_in = kept_in

    def scalar_names(self) -> tuple[str, ...]:
        return ("ssc_calibration/s0", "ssc_calibration/s1")

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        self._affordable(self._controls(module, MOST))  # a budget that is too small is refused before it is spent
        self.encoder.to(module.device)
        kept = self._kept(module, datamodule, seed)
        with kept.going_on(), counting(module.backbone) as bar:
            proposal = self._proposal(module, datamodule, kept, bar, seed)
            samplers = self._controls(module, proposal)
            num = self._affordable(samplers)
            max_dim = max(1, min(self.max_dim, num // 4))
            space = PairedFeatures(self.encoder, max_dim, self.batch_size, self.precision, kept)
            features = space.of_samplers(samplers, num, module, datamodule, bar, seed)
        reference = space.of_test_images(self._images(datamodule), datamodule, seed)
        scores = compare_samplers(features, reference, ControlledSampler.plain, self.num_resamples, seed=seed)
        rows = [score_row(score, samplers[score.sampler]) for score in scores]
        return Measurement(
            "ssc_calibration",
            {"ssc_calibration/s0": proposal.s0, "ssc_calibration/s1": proposal.s1},
            rows,
            plot_differences(rows),
            protocol=self._protocol(module, datamodule, proposal, num, max_dim, seed),
            about=ABOUT,
            verdicts=ssc_verdict(proposal, scores),
        )

    def _kept(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Kept:
        """Where features are stored: by one process alone, since all must make the same calls of a sharded network."""
        if self.kept_in is None or rank_and_world_size()[1] > 1:
            return Kept(None, {})
        data = {"test": identity_of(datamodule.test), "pictures": identity_of(datamodule.reference_pictures("test"))}
        weights = fingerprint.of_weights(module.backbone.state_dict().items())
        decided = {"weights": weights, "data": datamodule.name, "seed": seed} | data
        return Kept(Path(self.kept_in) / KEPT, decided | {"sampler": sampling_protocol(module)})

    def _controls(self, module: FlowMatching, proposal: SSCProposal) -> dict[ControlledSampler, Sampler]:
        return ssc_controls(module.sampler, proposal, self.constants, self.solvers, self.num_steps)

    def _images(self, datamodule: ImageDataModule) -> int:
        return min(self.num_images, len(datamodule.test))

    # --- what the budget pays for ---

    def _affordable(self, samplers: Mapping[ControlledSampler, Sampler]) -> int:
        """How many samples of each sampler the budget pays for."""
        if self.budget is None:
            return self.num_samples
        calls = sum(map(network_calls, different(samplers).values()))
        num = min(self.num_samples, int(SAMPLES_PART * self.budget) // calls)
        if num < FEWEST_SAMPLES:
            needed = -int(-FEWEST_SAMPLES * calls // SAMPLES_PART)
            raise ValueError(
                f"budget={self.budget} pays for {num} samples of each sampler, and intervals need {FEWEST_SAMPLES}: "
                f"raise it to {needed}, or lower num_steps or the number of constants"
            )
        return num

    def _lag_samples(self, module: FlowMatching, num_images: int) -> int:
        """How many samples are followed for the lag: at most half of the images, and its part of the budget."""
        calls = network_calls(_plain(module.sampler))
        paid = self.num_samples if self.budget is None else int(LAG_PART * self.budget) // calls
        return max(2, min(self.num_samples, num_images // 2, paid))

    def _deficit_images(self, num_images: int) -> int:
        """How many images the deficit is measured on, at each level."""
        paid = MOST_DEFICIT_IMAGES if self.budget is None else int(DEFICIT_PART * self.budget) // len(LEVELS)
        return max(FEWEST_SAMPLES, min(MOST_DEFICIT_IMAGES, num_images, paid))

    def _protocol(
        self,
        module: FlowMatching,
        datamodule: ImageDataModule,
        proposal: SSCProposal,
        num: int,
        max_dim: int,
        seed: int,
    ) -> dict[str, Any]:
        num_images = self._images(datamodule)
        return {
            "num_samples": num,
            "budget": self.budget,
            "reference": f"{num_images} test images of {datamodule.name}",
            "resamples": self.num_resamples,
            "deficit_images": self._deficit_images(num_images),
            "lag_samples": self._lag_samples(module, num_images),
            "precision": self.precision,
            "weights": module.weights_name,
            "seed": seed,
            "proposal": proposal.rows()[0],
            "features": self.encoder.protocol() | {"projected_to": max_dim},
            "sampler": sampling_protocol(module),
        }

    # --- the proposal ---

    def _proposal(
        self, module: FlowMatching, datamodule: ImageDataModule, kept: Kept, bar: CallBar, seed: int
    ) -> SSCProposal:
        num = self._images(datamodule)
        sizes = {"images": num, "of_deficit": self._deficit_images(num), "of_lag": self._lag_samples(module, num)}

        def make() -> dict[str, Any]:
            return vars(self._proposed(module, datamodule, sizes, bar, seed))

        return SSCProposal(
            **kept.numbers({"proposal": sizes | {"max_dim": self.max_dim, "resamples": RESAMPLES}}, make)
        )

    def _proposed(
        self, module: FlowMatching, datamodule: ImageDataModule, sizes: Mapping[str, int], bar: CallBar, seed: int
    ) -> SSCProposal:
        chosen = datamodule.test.subset(sizes["images"])
        few, num, plain = sizes["of_deficit"], sizes["of_lag"], _plain(module.sampler)
        labels = chosen.labels[:few] if module.backbone.takes == "class" else None
        images = datamodule.to_data(chosen.images)
        bar.expect(few * len(LEVELS) + num * network_calls(plain))
        bar.begin("deficit")
        norms = velocity_norms(
            module.velocity_network, module.interpolant, images[:few], LEVELS, seed,
            labels=labels, device=module.device,
        )  # fmt: skip
        bar.begin("lag", rows_per_call(plain))
        lag = integration_lag(
            plain, module.velocity_network, module.interpolant, images, num, seed,
            module.labels_for(range(num), seed), max_dim=self.max_dim, device=module.device, guide=module.guide,
        )  # fmt: skip
        return calibrate_ssc(norms, lag)


def _plain(sampler: Sampler) -> Sampler:
    return replace(sampler, s0=1.0, s1=1.0)
