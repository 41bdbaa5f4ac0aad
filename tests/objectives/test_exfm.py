"""ExFM as an objective: its target for classes, latents and other predictions, against loops."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest
import pytorch_lightning as pl
import torch
from torch import Tensor

from flowexp.backbones import Backbone, create_backbone
from flowexp.data import Digits, ImageDataModule, to_float
from flowexp.data.datasets.latents import LatentSet
from flowexp.data.storage.npy_files import ShardedArray
from flowexp.flow.parameterization import Parameterization
from flowexp.objectives import ExplicitFlowMatching
from flowexp.training.couplings import MinibatchOT
from flowexp.training.step_draws import StepKey, TrainingBatch

T = [0.3, 0.8, 0.95, 0.9]
PAIRS = [("velocity", "velocity"), ("data", "data"), ("data", "velocity"), ("noise", "noise"), ("noise", "data")]


def small_backbone(**options) -> Backbone:
    torch.manual_seed(0)
    size = {"resolution": 4, "channels": 1, "depth": 2, "width": 16, "heads": 2}
    backbone = create_backbone("dit_nano2", **{**size, **options})
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return backbone.double()


def batch_of(data: Tensor, label: Tensor | None = None, step: int = 0) -> TrainingBatch:
    noise = torch.randn(data.shape, generator=torch.Generator().manual_seed(1), dtype=data.dtype)
    return TrainingBatch(data, noise, torch.tensor(T[: len(data)], dtype=data.dtype), label, key=StepKey(0, step))


def few_images(num: int = 4) -> Tensor:
    return torch.randn(num, 1, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def xt_of(batch: TrainingBatch) -> Tensor:
    t = batch.t[:, None, None, None]
    return (1 - t) * batch.data + t * batch.noise


def expected_data(batch: TrainingBatch, row: int, candidates: list[Tensor]) -> Tensor:
    """sum_k w_k c_k with w = softmax(-||x_t - (1 - t) c_k||^2 / (2 t^2))."""
    t, xt = float(batch.t[row]), xt_of(batch)[row]
    weights = torch.stack([-((xt - (1 - t) * c) ** 2).sum() / (2 * t * t) for c in candidates]).softmax(0)
    return sum(w * c for w, c in zip(weights, candidates, strict=True))  # type: ignore[return-value]


@pytest.mark.parametrize(("prediction", "loss_space"), PAIRS)
def test_whatever_is_predicted_its_average_over_the_candidates_is_regressed(prediction: str, loss_space: str):
    parameterization = Parameterization(prediction, loss_space)
    module = ExplicitFlowMatching(backbone=small_backbone(), parameterization=parameterization)
    batch = batch_of(few_images())
    xt, t = xt_of(batch), batch.t[:, None, None, None]
    data = torch.stack([expected_data(batch, row, list(batch.data)) for row in range(4)])
    averaged = {"data": data, "noise": (xt - (1 - t) * data) / t, "velocity": (xt - data) / t}
    output = module.backbone(xt, batch.t)
    weight = {("data", "velocity"): 1 / t, ("noise", "data"): t / (1 - t)}.get((prediction, loss_space), 1.0)
    expected = (weight * (output - averaged[prediction])).square().mean()
    torch.testing.assert_close(module.losses(batch).loss, expected)


def test_given_a_class_the_candidates_are_those_of_the_class_and_all_where_it_was_dropped():
    module = ExplicitFlowMatching(backbone=small_backbone(num_classes=2))
    label = torch.tensor([0, 1, 0, 2])  # 2 stands for a dropped label
    batch = batch_of(few_images(), label)
    xt = xt_of(batch)
    for row, rows in enumerate([[0, 2], [1], [0, 2], [0, 1, 2, 3]]):
        data = expected_data(batch, row, [batch.data[k] for k in rows])
        found = module.target(batch, xt, batch.t)[row]
        torch.testing.assert_close(found, (xt[row] - data) / batch.t[row])


class FewLatents(ImageDataModule):
    """Twelve latents of three classes, in the form that a cache has them."""

    name, resolution, channels, num_classes = "few_latents", 4, 1, 3

    def load(self) -> tuple[LatentSet, LatentSet]:  # type: ignore[override]
        rows = np.random.default_rng(0).normal(size=(12, 1, 2, 1, 4, 4)).astype(np.float16)
        store = SimpleNamespace(gather=lambda numbers: rows[numbers])
        latents = LatentSet(cast(ShardedArray, store), torch.arange(12), torch.arange(12) % 3, scale=0.5)
        return latents, latents

    def to_data(self, images: Tensor) -> Tensor:
        return images


@pytest.mark.parametrize("kind", [Digits, FewLatents])
@pytest.mark.parametrize("classes", [False, True])
def test_further_candidates_are_training_images_as_the_data_of_the_flow(kind: type[ImageDataModule], classes: bool):
    datamodule = kind(batch_size=4)
    datamodule.setup()
    num_classes = datamodule.num_classes if classes else None
    backbone = small_backbone(resolution=datamodule.resolution, num_classes=num_classes)
    module = ExplicitFlowMatching(backbone=backbone, num_candidates=9)
    trainer = pl.Trainer(logger=False, accelerator="cpu", enable_checkpointing=False, enable_progress_bar=False)
    trainer.datamodule = datamodule  # type: ignore[attr-defined]
    module.trainer = trainer

    chosen = datamodule.train.select(torch.arange(4))
    images = datamodule.train.images
    data = images if images.is_floating_point() else to_float(images)
    label = chosen.labels if classes else None
    batch = batch_of(data[:4].double(), label, step=3)
    rows = torch.randint(len(data), (9,), generator=batch.key.candidates())
    xt = xt_of(batch)
    for row in range(4):
        allowed = [
            int(k) for k in [*range(4), *rows] if not classes or chosen.labels[row] == datamodule.train.labels[k]
        ]
        expected = (xt[row] - expected_data(batch, row, [data[k].double() for k in allowed])) / batch.t[row]
        torch.testing.assert_close(module.target(batch, xt, batch.t)[row], expected, rtol=1e-5, atol=1e-5)


def test_what_has_no_average_over_independent_pairs_is_refused():
    with pytest.raises(ValueError, match="set coupling=independent"):
        ExplicitFlowMatching(backbone=small_backbone(), coupling=MinibatchOT())
    with pytest.raises(ValueError, match="a caption has one"):
        ExplicitFlowMatching(backbone=create_backbone("mmdit_nano", resolution=8, channels=1))
