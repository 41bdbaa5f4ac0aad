"""Loss over the noise level: of the training steps since the last report, and of the EMA network on held-out images."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch.distributed as dist
from torch import Tensor

from flowexp.callbacks.monitor import Monitor
from flowexp.callbacks.sharing import collect, rank_and_world_size, share
from flowexp.data import ImageDataModule
from flowexp.diagnostics import LevelVelocity, NoiseLevelSums, bin_centres, loss_by_noise_level
from flowexp.figures import plot_curves
from flowexp.modules import FlowMatching
from flowexp.recording import Measurement

Row = dict[str, Any]
ABOUT = (
    "The velocity error |v - v*|² / d at each noise level: of training batches (raw weights, the rows that the "
    "objective regresses) and of test images (EMA weights, all levels), and there the length "
    "of v as a share of its target's."
)
MAPS = {"loss": "velocity error, |v - v*|² / d", "velocity_ratio": "|v| / |v*|"}


class NoiseLevelMonitor(Monitor):
    """Sums the errors that training steps return into bins of t, and compares v with v* on test images.

    The training curve has only the rows that an objective regresses (LCF: t >= T_min), with the raw weights. The test
    curve has every level and the EMA weights whatever the objective, so that FM, LCF and MAFM can be compared by it.

    Arguments:
        num_bins: bins of t; test images are measured at their middles.
        num_images: test images, a fixed random subset.
        batch_size: test images that go through the network at once.
    """

    def __init__(
        self,
        num_bins: int = 20,
        num_images: int = 1024,
        batch_size: int = 256,
        every_n_steps: int | None = None,
        at_end: bool = True,
    ) -> None:
        super().__init__(every_n_steps, at_end)
        self.sums = NoiseLevelSums(num_bins)
        self.num_images = num_images
        self.batch_size = batch_size

    def scalar_names(self) -> tuple[str, ...]:
        return ("noise_levels/loss", "noise_levels/velocity_ratio")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.sums = NoiseLevelSums(self.sums.num_bins, pl_module.device)

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.sums.update(outputs["t"], outputs["error"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        held_out = self._held_out(module, datamodule, seed)
        rows = [*self._training_rows(), *(_row(t, "test", **vars(velocity)) for t, velocity in held_out.items())]
        scalars = {
            "noise_levels/loss": _mean([velocity.loss for velocity in held_out.values()]),
            "noise_levels/velocity_ratio": _mean([velocity.velocity_ratio for velocity in held_out.values()]),
        }
        weights = "EMA weights" if module.weights_name == "ema" else f"{module.weights_name} weights"
        protocol = {
            "train": "errors since the last report, raw weights",
            "test": f"{min(self.num_images, len(datamodule.test))} images of {datamodule.name}, {weights}",
            "num_bins": self.sums.num_bins,
            "seed": seed,
        }
        return Measurement("noise_levels", scalars, rows, _draw(rows), protocol=protocol, about=ABOUT, maps=MAPS)

    def _training_rows(self) -> list[Row]:
        """A row for each bin that training reached, over all processes; begins the next report."""
        if rank_and_world_size()[1] > 1:
            dist.all_reduce(self.sums.sums)
        bins = self.sums.compute()
        self.sums.reset()
        return [_row(found.t, "train", loss=found.loss) for found in bins if found.count]

    def _held_out(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> dict[float, LevelVelocity]:
        test = datamodule.test.subset(min(self.num_images, len(datamodule.test)))
        labels: Tensor | None = test.labels if module.backbone.takes == "class" else None
        found = loss_by_noise_level(
            module.velocity_network,
            module.interpolant,
            test.images,
            share(bin_centres(self.sums.num_bins)),
            seed,
            labels=labels,
            batch_size=self.batch_size,
            device=module.device,
            prepare=datamodule.to_data,
        )
        return dict(sorted(collect(found).items()))


def _row(t: float, split: str, loss: float | None, **velocity: float) -> Row:
    """A row of the table; the velocity is known on test images only."""
    columns = ("velocity_rms", "target_rms", "velocity_ratio")
    return {"t": t, "split": split, "loss": loss, **{column: velocity.get(column) for column in columns}}


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _draw(rows: list[Row]) -> Any:
    series = "split" if len({row["split"] for row in rows}) > 1 else None  # without training there is nothing to tell
    return plot_curves(rows, "t", list(MAPS), series, names={"t": "noise level t", **MAPS})
