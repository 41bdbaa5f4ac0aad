"""Loss over the noise level: of the training steps since the last report, and of the EMA network on held-out images."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
from torch import Tensor

from flowexp.data import ImageDataModule
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.diagnostics import LevelVelocity, NoiseLevelSums, bin_centres, loss_by_noise_level
from flowexp.objectives import FlowMatching
from flowexp.records.figures import plot_curves
from flowexp.records.recording import Measurement
from flowexp.training.parallel.work import collect, rank_and_world_size, share

Row = dict[str, Any]
ABOUT = (
    "The velocity error |v - v*|² / d at each noise level: of training batches (raw weights, the rows that the "
    "objective regresses) and of test images (EMA weights, all levels), and there the length "
    "of v as a share of its target's."
)
_SUMS = "noise_level_sums"  # of a checkpoint: the errors since the last report
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
        self._goes_on = False  # whether `sums` are those of a checkpoint
        self.num_images = num_images
        self.batch_size = batch_size

    def scalar_names(self) -> tuple[str, ...]:
        return ("noise_levels/loss", "noise_levels/velocity_ratio")

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        sums = NoiseLevelSums(self.sums.num_bins, pl_module.device)
        if self._goes_on:
            sums.sums.copy_(self.sums.sums)
        self.sums, self._goes_on = sums, False

    def on_train_batch_end(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.sums.update(outputs["t"], outputs["error"])
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_save_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_save_checkpoint(trainer, pl_module, checkpoint)
        checkpoint[_SUMS] = self._sums_of_all_processes(pl_module.device).cpu()

    def on_load_checkpoint(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        super().on_load_checkpoint(trainer, pl_module, checkpoint)
        saved = checkpoint.get(_SUMS)
        if (
            saved is not None and saved.shape == self.sums.sums.shape and trainer.is_global_zero
        ):  # those of all processes
            self.sums.sums, self._goes_on = saved.clone(), True

    def take(self, measurement: Measurement, step: int) -> None:
        super().take(measurement, step)
        self.sums.reset()

    def measure(self, module: FlowMatching, datamodule: ImageDataModule, seed: int) -> Measurement:
        held_out = self._held_out(module, datamodule, seed)
        rows = [
            *self._training_rows(module.device),
            *(_row(t, "test", **vars(velocity)) for t, velocity in held_out.items()),
        ]
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
        figure = _draw(rows)
        self.sums.reset()  # begins the next report; not before this one is whole, which a signal can cut off
        return Measurement("noise_levels", scalars, rows, figure, protocol=protocol, about=ABOUT, maps=MAPS)

    def _training_rows(self, device: torch.device) -> list[Row]:
        """A row for each bin that training reached, over all processes."""
        sums = NoiseLevelSums(self.sums.num_bins)
        sums.sums = self._sums_of_all_processes(device)
        return [_row(found.t, "train", loss=found.loss) for found in sums.compute() if found.count]

    def _sums_of_all_processes(self, device: torch.device) -> Tensor:
        sums = self.sums.sums.to(device, copy=True)
        if rank_and_world_size()[1] > 1:
            dist.all_reduce(sums)
        return sums

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
    series = "split" if len({row["split"] for row in rows}) > 1 else None  # without training there is no such curve
    return plot_curves(rows, "t", list(MAPS), series, names={"t": "noise level t", **MAPS})
