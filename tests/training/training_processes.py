"""Small trainings of every kind, which one process and two of their own run alike: fresh ones, never forks.

They compute in float64: what is left between one process and two is the order of sums, and in float32 that depends on
the processor.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from flowexp.backbones import Backbone, create_backbone
from flowexp.data import ImageDataModule, ImageSet
from flowexp.integrations.encoders import TEACHERS, Teacher
from flowexp.objectives import ExplicitFlowMatching, FlowMatching, LocalContrastiveFlow
from flowexp.objectives.terms import Dispersive, RepresentationAlignment, SelfDistillation, Term
from flowexp.training import couplings
from flowexp.training.checkpoints import AtomicCheckpointIO, StepCheckpoint, latest_checkpoint
from flowexp.training.couplings import MinibatchOT
from flowexp.training.ema import EMA, whole
from flowexp.training.fsdp import FullySharded

sys.path.append(str(Path(__file__).resolve().parents[2] / "docs/new_idea"))
from energy import Energy  # a term that flowexp does not know

GLOBAL_BATCH = 8
NUM_STEPS = 2
Found = dict[str, Tensor]


class Rows(ImageDataModule):
    """Random pictures with classes, or with an embedded caption for each class where `text` is set."""

    name, resolution, channels, num_classes = "rows", 8, 1, 3

    def __init__(self, text: bool = False) -> None:
        super().__init__(batch_size=GLOBAL_BATCH)
        self.captions = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(2)).double() if text else None

    def load(self) -> tuple[ImageSet, ImageSet]:
        images = torch.randint(0, 256, (32, 1, 8, 8), generator=torch.Generator().manual_seed(1)).to(torch.uint8)
        return ImageSet(images, torch.arange(32) % 3), ImageSet(images, torch.arange(32) % 3)

    def on_after_batch_transfer(self, batch: dict[str, Tensor], dataloader_idx: int) -> dict[str, Any]:
        batch = super().on_after_batch_transfer(batch, dataloader_idx)
        return batch if self.captions is None else {**batch, "label": self.captions[batch["label"]]}


class RowsInFloat64(Rows):
    def to_data(self, images: Tensor) -> Tensor:
        return super().to_data(images).double()


class Patches(Teacher):
    """A frozen map of each token's pixels, in float64: a network in float32 rounds by how many pictures it sees."""

    name, dim = "patches", 6

    def read(self, images: Tensor, side: int) -> Tensor:
        pixels = F.adaptive_avg_pool2d(images.double(), side).flatten(2).mT
        return pixels @ torch.randn(3, self.dim, generator=torch.Generator().manual_seed(4)).double()

    def protocol(self) -> dict[str, Any]:
        return {"teacher": self.name}


TEACHERS[Patches.name] = Patches


# --- networks, none of whose outputs is zero --------------------------------------------------------------------------


def dit(**options: Any) -> Backbone:
    return _drawn(create_backbone("dit_nano2", resolution=8, channels=1, depth=3, width=16, heads=2, **options))


def unet() -> Backbone:
    return _drawn(create_backbone("unet_nano", resolution=8, channels=1))


def mmdit() -> Backbone:
    sizes = {"depth": 2, "width": 16, "heads": 2, "text_length": 3, "text_dim": 4}
    return _drawn(create_backbone("mmdit_nano", resolution=8, channels=1, label_dropout=0.5, **sizes))


def _drawn(backbone: Backbone) -> Backbone:
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.1)
    return backbone


# --- trainings --------------------------------------------------------------------------------------------------------


def repa(tap: int) -> Term:
    return RepresentationAlignment(teacher=Patches.name, tap=tap, hidden=8)


def every_term() -> dict[str, Term]:
    distillation = SelfDistillation(tap=2, hidden=8, dim=4, momentum=0.5)
    own = {"repa": repa(2), "dispersive": Dispersive(tap=1), "self_distillation": distillation}
    return own | {"energy": Energy(lam=0.5)}


BUILD: dict[str, Callable[..., FlowMatching]] = {
    "classes": lambda **o: FlowMatching(dit(num_classes=3, label_dropout=0.5), **o),
    "no anchor anywhere": lambda **o: LocalContrastiveFlow(backbone=dit(), T_min=0, **o),
    # the second process alone has one in the first step (least t 0.36 | 0.23), the first in the second (0.12 | 0.24)
    "no anchor in one process": lambda **o: LocalContrastiveFlow(
        backbone=dit(), T_min=230, terms={"energy": Energy(lam=0.5)}, **o
    ),
    "no regressed row in one process": lambda **o: LocalContrastiveFlow(
        backbone=dit(), T_min=850, tap=1, terms={"repa": repa(3), "energy": Energy(lam=0.5)}, **o
    ),
    "every term": lambda **o: LocalContrastiveFlow(backbone=dit(), T_min=400, terms=every_term(), **o),
    "covariance": lambda **o: FlowMatching(dit(), terms={"dispersive": Dispersive(tap=1, form="covariance")}, **o),
    "u-net": lambda **o: LocalContrastiveFlow(backbone=unet(), T_min=400, **o),
    "captions": lambda **o: LocalContrastiveFlow(backbone=mmdit(), T_min=400, tap=1, **o),
    "minibatch ot": lambda **o: FlowMatching(dit(), coupling=MinibatchOT(), **o),
    "exfm": lambda **o: ExplicitFlowMatching(backbone=dit(num_classes=3), num_candidates=4, **o),
}


@dataclass(frozen=True)
class Training:
    """One of BUILD, with a strategy for two processes and how many batches make a step."""

    name: str
    sharded: bool = False
    accumulate: int = 1

    def __str__(self) -> str:
        how = "fsdp" if self.sharded else "ddp"
        return f"{self.name}, {how}" + (f", accumulating {self.accumulate}" if self.accumulate > 1 else "")


TRAININGS = [
    *map(Training, BUILD),
    Training("every term", accumulate=2),
    *(Training(name, sharded=True) for name in ("every term", "u-net", "captions")),
]
RESUMED = Training("every term", sharded=True)


class Gradients(pl.Callback):
    """Keeps the gradient of each step, before it is clipped."""

    def __init__(self) -> None:
        self.found: Found = {}

    def on_before_optimizer_step(self, trainer: pl.Trainer, pl_module: pl.LightningModule, _: Any) -> None:
        for name, parameter in pl_module.named_parameters():
            if parameter.requires_grad:
                assert parameter.grad is not None, f"{name} got no gradient, for which other processes would wait"
                self.found[f"gradient {name} of step {trainer.global_step}"] = whole(parameter.grad).clone()


def train(training: Training, world_size: int, folder: Path) -> Found:
    """Gradients of all steps, weights and their average in the end; two processes resume one sharded on the way."""
    gradients = Gradients()
    if training == RESUMED and world_size > 1:
        _fit(training, world_size, folder, NUM_STEPS - 1, gradients)
    module = _fit(training, world_size, folder, NUM_STEPS, gradients)
    state = {name: whole(value).clone() for name, value in module.state_dict().items()}
    assert module.ema is not None
    return gradients.found | state | {f"average {k}": whole(v) for k, v in module.ema.averages.items()}


def _fit(training: Training, world_size: int, folder: Path, num_steps: int, gradients: Gradients) -> FlowMatching:
    module = BUILD[training.name](seed=3, optimizer=partial(torch.optim.AdamW, lr=1e-3), ema=EMA(0.5)).double()
    strategy: Any = "auto" if world_size == 1 else FullySharded() if training.sharded else "ddp"
    checkpoints = [StepCheckpoint(folder, every_n_steps=1)] if training == RESUMED and world_size > 1 else []
    trainer = pl.Trainer(
        max_steps=num_steps,
        accelerator="cpu",
        devices=world_size,
        strategy=strategy,
        accumulate_grad_batches=training.accumulate,
        callbacks=[gradients, *checkpoints],
        plugins=[AtomicCheckpointIO()],
        default_root_dir=folder,
        logger=False,
        enable_checkpointing=bool(checkpoints),
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
        num_sanity_val_steps=0,
    )
    trainer.fit(module, datamodule=RowsInFloat64(training.name == "captions"), ckpt_path=latest_checkpoint(folder))
    return module


def not_here(*_: Tensor) -> Tensor:
    raise AssertionError("the first process pairs noise with data for all")


def train_all(rank: int, folder: Path) -> None:
    """Every training as process `rank` of two; the first writes what was found."""
    os.environ["LOCAL_RANK"] = str(rank)  # what tells Lightning that it need not start the other one
    if rank > 0:
        couplings._least_distance = not_here  # of a machine whose products differ in the last bit, say
    dist.init_process_group("gloo", f"file://{folder}/rendezvous", rank=rank, world_size=2)
    for number, training in enumerate(TRAININGS):
        found = train(training, 2, folder / str(number))
        if rank == 0:
            torch.save(found, folder / f"{number}.pt")
