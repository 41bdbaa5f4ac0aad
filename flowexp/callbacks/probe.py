"""Probe accuracy of the EMA network over noise levels and layers (LCF Fig. 4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import Tensor
from tqdm import tqdm

from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.precision import autocast, check_precision
from flowexp.callbacks.sharing import collect, rank_and_world_size, share
from flowexp.data import ImageDataModule, ImageSet, to_float
from flowexp.diagnostics import ProbeCurve, extract_features, fit_probes
from flowexp.diagnostics.probe import OPTIMIZERS
from flowexp.figures import plot_curves
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement
from flowexp.time import as_noise_level

LEVELS = (0.0, 0.01, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.5, 0.8)  # T = 0 to 800 of 1000, dense where LCF's curve bends


class ProbeMonitor(Monitor):
    """Fits linear classifiers to frozen features of the training images and scores them on the test images.

    The classifiers live for one measurement and never belong to the module. Processes share the levels.

    Arguments:
        levels: noise levels, or numbers of 1000.
        taps: blocks whose output is read, from 1; None is the backbone's default, 8 of 12 (LCF section A.4.3).
        epochs, batch_size, lr, weight_decay, optimizer: of the classifiers; the defaults are LCF's Table 3.
        max_train_images: fit on a fixed random subset; features take levels x images x width x 4 bytes. None is all.
        extract_batch_size: images that go through the network at once.
        precision: of the network while features are read, 32-true or bf16-mixed; the classifiers are fitted in fp32.

    Raises:
        ValueError: a level outside of [0, 1000], no level at all, or an unknown precision.
    """

    def __init__(
        self,
        levels: Sequence[float] = LEVELS,
        taps: Sequence[int] | None = None,
        epochs: int = 15,
        batch_size: int = 128,
        lr: float = 1e-3,
        weight_decay: float = 0.01,
        optimizer: str = "adamw",
        max_train_images: int | None = None,
        extract_batch_size: int = 256,
        precision: str = "32-true",
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.levels = sorted({as_noise_level(level) for level in levels})
        if not self.levels:
            raise ValueError("the probe needs at least one noise level, got none")
        if optimizer not in OPTIMIZERS:
            raise ValueError(f"the probe's optimizer must be one of {', '.join(OPTIMIZERS)}, got {optimizer!r}")
        self.taps = None if taps is None else sorted(set(taps))
        self.fit: dict[str, Any] = {
            "epochs": epochs,
            "batch_size": batch_size,
            "lr": lr,
            "weight_decay": weight_decay if optimizer == "adamw" else 0.0,
            "optimizer": optimizer,
        }
        self.max_train_images = max_train_images
        self.extract_batch_size = extract_batch_size
        self.precision = check_precision(precision)

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        train = self._training_set(datamodule)
        curve = ProbeCurve(dict(sorted(collect(self._accuracy(module, train, datamodule, seed)).items())))
        if any(math.isnan(accuracy) for accuracy in curve.accuracy.values()):
            raise ValueError("the network's features are NaN or infinite at some noise level: training has diverged")
        scalars = {
            "probe/peak": curve.peak,
            "probe/t_peak": curve.t_peak,
            "probe/at_clean": curve.at_clean,
            "probe/dip": curve.dip,
        }
        protocol = self._protocol(datamodule, len(train), seed)
        return Measurement("probe", scalars, curve.rows(), _draw(curve), protocol=protocol)

    def _accuracy(
        self, module: FlowMatching, train: ImageSet, datamodule: ImageDataModule, seed: int
    ) -> dict[tuple[float, int], float]:
        """Accuracy by (level, tap), of this process's share of the levels."""
        levels, taps, test = share(self.levels), self.taps or [module.backbone.default_tap], datamodule.test
        train_features = self._features(module, train.images, levels, taps, 2 * seed)
        test_features = self._features(module, test.images, levels, taps, 2 * seed + 1)  # noise of its own
        result = fit_probes(
            train_features,
            train.labels,
            test_features,
            test.labels,
            datamodule.num_classes,
            seed=seed,
            **self.fit,
        )
        places = [(level, tap) for level in levels for tap in taps]
        return dict(zip(places, result.accuracy.tolist(), strict=True))

    def _features(
        self, module: FlowMatching, images: Tensor, levels: list[float], taps: list[int], seed: int
    ) -> Tensor:
        hidden = None if rank_and_world_size()[0] == 0 else True
        bar = tqdm(levels, desc="features", unit="level", leave=False, disable=hidden)
        with autocast(self.precision, module.device):
            return extract_features(
                module.backbone,
                module.interpolant,
                images,
                bar,
                taps,
                seed,
                self.extract_batch_size,
                module.device,
                prepare=to_float,
            )

    def _training_set(self, datamodule: ImageDataModule) -> ImageSet:
        train = datamodule.train
        return train if self.max_train_images is None else train.subset(min(self.max_train_images, len(train)))

    def _protocol(self, datamodule: ImageDataModule, num_train: int, seed: int) -> dict[str, Any]:
        return {
            **self.fit,
            "data": datamodule.name,
            "num_train": num_train,
            "num_test": len(datamodule.test),
            "features": "mean over tokens, not normalised, no label",
            "noise": "one draw per image and level",
            "augmentation": None,
            "lr_schedule": "cosine, stepped per epoch",
            "weights": "ema",
            "precision": self.precision,
            "seed": seed,
        }


def _draw(curve: ProbeCurve) -> Any:
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy"}
    return plot_curves(curve.rows(), "t", "accuracy", series="tap", names=names, log_x=True)
