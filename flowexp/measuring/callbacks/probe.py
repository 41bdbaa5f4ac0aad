"""Probe accuracy of the EMA network over noise levels and layers (LCF Fig. 4)."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from tqdm import tqdm

from flowexp.data import ImageDataModule, Images
from flowexp.flow.time import as_noise_level
from flowexp.integrations.encoders import FeatureNet, as_encoder
from flowexp.measuring.callbacks.autocast import autocast, check_precision
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.probe_baselines import ProbeBaselines
from flowexp.measuring.diagnostics import ProbeCurve, create_protocol, extract_features, probe_curves
from flowexp.measuring.diagnostics.knn import TEMPERATURE, K
from flowexp.measuring.diagnostics.logistic_regression import HELD_OUT, PENALTIES, TOLERANCE
from flowexp.measuring.diagnostics.probe import READINGS
from flowexp.measuring.diagnostics.verdict import READING_NAMES, readings_verdict
from flowexp.objectives import FlowMatching
from flowexp.records.figures import plot_curves
from flowexp.records.protocol_card import protocol_hash
from flowexp.records.recording import Measurement
from flowexp.training.parallel.work import collect, rank_and_world_size, share

LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)  # T = 0 to 800 of 1000, dense where LCF's curve bends
ABOUT = (
    "How well classes can be read off a layer of the frozen network at each noise level (LCF Fig. 4), as the share of "
    "test images that a probe names correctly; a tap is the block whose output is read. Features that get worse "
    "towards clean data (t to 0) are the low-noise pathology; the dip is the peak less the value at the cleanest "
    "level, at the peak's layer. It is that of a logistic regression to convergence; the paper's probe of few updates "
    "shows the scale of the features too. Lines across are the same probe on raw pixels, and on a frozen encoder's "
    "features, of the clean images."
)
NETWORK = "network"  # what `features` says of the network's, beside the baselines' names
PREFIXES = {"converged": "probe", "paper": "probe_paper", "knn": "knn"}  # of each reading's numbers


class ProbeMonitor(Monitor):
    """Fits classifiers to frozen features of the training images and scores them on the test images.

    The classifiers live for one measurement and never belong to the module. Processes share the levels.

    Arguments:
        levels: noise levels in [0, 1], from clean to noise.
        taps: blocks whose output is read, from 1; None is the backbone's default, 8 of 12 (LCF section A.4.3).
        readings: some of "converged" (logistic regression on standardised features to convergence), "paper" (the linear
            probe of `protocol`) and "knn" (centred cosine, 20 neighbours); features are extracted once for all.
        baselines: what is read of clean images for comparison: "pixels", "encoder".
        encoder: the frozen encoder of that baseline.
        cache: folder that keeps the baselines' accuracies; None computes them each time.
        protocol: how the paper's reading is fitted, "lcf" (Table 3) or "ddae".
        epochs, batch_size, lr, weight_decay, optimizer: another setting than the protocol's, which the record then
            names as a departure; None is the protocol's.
        max_train_images, max_test_images: fit, or score, on a fixed random subset; None is all.
        extract_batch_size: images that go through the network at once.
        memory_gb: the features of as many levels are in memory at once as this holds, at least of one; a level takes
            taps x images x width x 4 bytes. Each head is fitted as it would be alone, so that it changes no number.
        precision: of the network while features are read, 32-true or bf16-mixed; the classifiers are fitted in fp32.

    Raises:
        ValueError: a level outside of [0, 1], no level at all, an unknown protocol, reading, baseline or precision, or
            a setting with which nothing is fitted. While measuring: no classes, or too few images for kNN.
    """

    def __init__(
        self,
        levels: Sequence[float] = LEVELS,
        taps: Sequence[int] | None = None,
        protocol: str | None = "lcf",
        epochs: int | None = None,
        batch_size: int | None = None,
        lr: float | None = None,
        weight_decay: float | None = None,
        optimizer: str | None = None,
        readings: Sequence[str] = READINGS,
        baselines: Sequence[str] = ("pixels",),
        encoder: str | Mapping[str, Any] | FeatureNet = "efficientnet_lite",
        cache: str | None = None,
        max_train_images: int | None = None,
        max_test_images: int | None = None,
        extract_batch_size: int = 256,
        memory_gb: float = 8.0,
        precision: str = "32-true",
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.levels = sorted({as_noise_level(level, "each of callbacks.probe.levels") for level in levels})
        if not self.levels:
            raise ValueError("the probe needs at least one noise level, got none")
        numbers = {
            "extract_batch_size": extract_batch_size,
            "max_train_images": max_train_images,
            "max_test_images": max_test_images,
        }
        for name, value in numbers.items():
            if value is not None and value < 1:
                raise ValueError(f"{name} must be at least 1, got {value}")
        if memory_gb <= 0:
            raise ValueError(f"memory_gb must be positive, got {memory_gb}")
        self.taps = None if taps is None else sorted(set(taps))
        fit = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay}
        self.protocol = create_protocol(protocol or "lcf").but(**fit, optimizer=optimizer)
        self.readings = tuple(reading for reading in READINGS if reading in readings)
        if not self.readings or set(readings) - set(READINGS):
            raise ValueError(f"readings must be some of {', '.join(READINGS)}, got {', '.join(readings) or 'none'}")
        frozen = as_encoder(encoder) if "encoder" in baselines else None
        self.baselines = ProbeBaselines(tuple(baselines), frozen, None if cache is None else Path(cache))
        self.max_train_images, self.max_test_images = max_train_images, max_test_images
        self.extract_batch_size = extract_batch_size
        self.memory_gb = memory_gb
        self.precision = check_precision(precision)

    def scalar_names(self) -> tuple[str, ...]:
        return tuple(f"{PREFIXES[reading]}/{number}" for reading in self.readings for number in _NUMBERS)

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        if not datamodule.num_classes:
            raise ValueError(
                f"a probe reads classes, and {datamodule.name} has none: choose a dataset that has, by data="
            )
        train = _at_most(datamodule.train, self.max_train_images)
        test = _at_most(datamodule.test, self.max_test_images)
        self._check_training_set(train, test, datamodule)
        parts = self._parts(module, train, test, datamodule, seed)
        curves = {reading: _whole(own) for reading, own in parts.items()}
        if any(math.isnan(value) for curve in curves.values() for value in curve.accuracy.values()):
            raise ValueError("the network's features are NaN or infinite at some noise level: training has diverged")
        baselines = self.baselines.rows(train, test, datamodule, self.readings, self.protocol, seed, module.device)
        scalars = {key: value for reading, curve in curves.items() for key, value in _scalars(reading, curve).items()}
        rows = _rows(curves, baselines)
        return Measurement(
            "probe",
            scalars,
            rows,
            _draw(rows),
            protocol=self._protocol(module, datamodule, curves, len(train), len(test), seed),
            about=ABOUT,
            verdicts=readings_verdict(curves),
            maps={"accuracy": "accuracy"},
        )

    def _check_training_set(self, train: Images, test: Images, datamodule: ImageDataModule) -> None:
        """Refuses fewer images than neighbours, and warns of classes that no image shows."""
        if "knn" in self.readings and len(train) < K:
            raise ValueError(
                f"the knn probe needs at least {K} training images, got {len(train)}: raise max_train_images"
            )
        unseen = set(test.labels.unique().tolist()) - set(train.labels.unique().tolist())
        if unseen and rank_and_world_size()[0] == 0:
            warnings.warn(
                f"{len(unseen)} of {datamodule.num_classes} classes are among the test images and not among the "
                f"{len(train)} that probes are fitted to, and count as wrong: raise max_train_images",
                stacklevel=2,
            )

    def _parts(
        self, module: FlowMatching, train: Images, test: Images, datamodule: ImageDataModule, seed: int
    ) -> dict[str, list[ProbeCurve]]:
        """The curves of each reading for this process's share of the levels, as many levels at once as memory holds."""
        levels, taps = share(self.levels), self._taps(module)
        numbers = (len(train) + len(test)) * len(taps) * max(map(module.backbone.width_at, taps))
        at_once = max(1, int(self.memory_gb * 1e9 / (4 * numbers)))
        parts = [
            self._curves(module, train, test, datamodule, levels[start : start + at_once], seed)
            for start in range(0, len(levels), at_once)
        ]
        return {reading: [curves[reading] for curves in parts] for reading in self.readings}

    def _curves(
        self,
        module: FlowMatching,
        train: Images,
        test: Images,
        datamodule: ImageDataModule,
        levels: list[float],
        seed: int,
    ) -> dict[str, ProbeCurve]:
        """The curves at some of the levels, whose features are in memory at once."""
        taps = self._taps(module)
        train_features = self._features(module, datamodule, train, levels, taps, 2 * seed)
        test_features = self._features(module, datamodule, test, levels, taps, 2 * seed + 1)  # noise of its own
        data = (train_features, train.labels, test_features, test.labels, datamodule.num_classes)
        return probe_curves(*data, levels, taps, self.protocol, self.readings, seed)

    def _taps(self, module: FlowMatching) -> list[int]:
        return self.taps or [module.backbone.default_tap]

    def _features(
        self,
        module: FlowMatching,
        datamodule: ImageDataModule,
        data: Images,
        levels: list[float],
        taps: list[int],
        seed: int,
    ) -> Tensor:
        hidden = None if rank_and_world_size()[0] == 0 else True
        bar = tqdm(levels, desc="features", unit="level", leave=False, disable=hidden)
        with autocast(self.precision, module.device):
            return extract_features(
                module.backbone,
                module.interpolant,
                data.images,
                bar,
                taps,
                seed,
                self.extract_batch_size,
                module.device,
                prepare=datamodule.to_data,
            )

    def _protocol(
        self,
        module: FlowMatching,
        datamodule: ImageDataModule,
        curves: Mapping[str, ProbeCurve],
        num_train: int,
        num_test: int,
        seed: int,
    ) -> dict[str, Any]:
        """How the curves were found, and the hash of what decides each number."""
        shared = self._shared_protocol(module, datamodule, num_train, num_test, seed)
        fits = {"converged": _CONVERGED, "paper": self._fit_protocol(num_train), "knn": _KNN}
        used = {reading: fits[reading] for reading in self.readings}
        cards: dict[str, str] = {}
        for reading, curve in curves.items():
            cards |= dict.fromkeys(_scalars(reading, curve), protocol_hash(shared | {reading: fits[reading]}))
        return {"readings": used, "baselines": list(self.baselines.names), **shared, "cards": cards}

    def _fit_protocol(self, num_train: int) -> dict[str, Any]:
        return {
            "protocol": self.protocol.name,
            **self.protocol.fit(),
            "updates": self.protocol.updates(num_train),
            "departures": list(self.protocol.departures),
            "lr_schedule": "cosine, stepped per epoch",
        }

    def _shared_protocol(
        self, module: FlowMatching, datamodule: ImageDataModule, num_train: int, num_test: int, seed: int
    ) -> dict[str, Any]:
        return {
            "data": datamodule.name,
            "num_train": num_train,
            "num_test": num_test,
            "levels": self.levels,
            "taps": self.taps or "the backbone's own",
            "features": "mean over tokens, not normalised, no label",
            "noise": "one draw per image and level",
            "augmentation": None,
            "weights": module.weights_name,
            "precision": self.precision,
            "seed": seed,
        }


_NUMBERS = ("peak", "t_peak", "at_clean", "dip", "dip_se")
_KNN = {"k": K, "temperature": TEMPERATURE, "similarity": "cosine, centred on the training images"}
_CONVERGED = {
    "classifier": "multinomial logistic regression, L-BFGS",
    "features": "standardised on the training images",
    "penalties": list(PENALTIES),
    "held_out": HELD_OUT,
    "tolerance": TOLERANCE,
}


def _at_most(images: Images, num: int | None) -> Images:
    return images if num is None else images.subset(min(num, len(images)))


def _whole(parts: Sequence[ProbeCurve]) -> ProbeCurve:
    """One curve of its levels' parts, on all processes; each has at least one level of its own."""
    accuracy = collect({cell: value for part in parts for cell, value in part.accuracy.items()})
    fits = collect({cell: fit for part in parts for cell, fit in part.fits.items()})
    correct = collect({cell: each for part in parts for cell, each in part.correct.items()})
    return replace(parts[0], accuracy=dict(sorted(accuracy.items())), fits=fits, correct=correct)


def _rows(curves: Mapping[str, ProbeCurve], baselines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The table of all readings, and of baselines without level and tap; what does not apply to a row is empty."""
    rows = [{"reading": reading, **row} for reading, curve in curves.items() for row in curve.rows()]
    columns = dict.fromkeys(("reading", "features", *(key for row in rows for key in row)))
    return [{**columns, "features": NETWORK, **row} for row in (*rows, *baselines)]


def _scalars(reading: str, curve: ProbeCurve) -> dict[str, float]:
    """The curve's numbers; those of the converged reading are called `probe/...`."""
    numbers = (curve.peak, curve.t_peak, curve.at_clean, curve.dip, curve.dip_se or 0.0)
    return {f"{PREFIXES[reading]}/{name}": value for name, value in zip(_NUMBERS, numbers, strict=True)}


def _draw(rows: Sequence[Mapping[str, Any]]) -> Any:
    """A panel for each reading: a line for each block, and one across for each baseline."""
    names = {"t": "noise level t (linear below 0.01)"}
    readings = dict.fromkeys(row["reading"] for row in rows)
    lines = [
        {"t": row["t"], "line": f"block {row['tap']}", row["reading"]: row["accuracy"]}
        for row in rows
        if row["features"] == NETWORK
    ]
    names |= {"line": "", **{reading: f"accuracy, {READING_NAMES[reading]}" for reading in readings}}
    baselines = [row for row in rows if row["features"] != NETWORK]
    across = {
        reading: {row["features"]: row["accuracy"] for row in baselines if row["reading"] == reading}
        for reading in readings
    }
    return plot_curves(lines, "t", [*readings], series="line", names=names, log_x=True, across=across)
