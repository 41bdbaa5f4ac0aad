"""An optimizer with two sets of weights: gradients are taken at one, and the other is measured, averaged and saved."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from omegaconf import OmegaConf
from schedulefree import AdamWScheduleFree
from torch.nn import Parameter

sys.path.append(str(Path(__file__).parent))
from training_processes import Rows, dit

from flowexp.cli.assembly.building import build_partial
from flowexp.objectives import FlowMatching
from flowexp.training.ema import EMA
from flowexp.training.optimization import use_weights

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Watched(AdamWScheduleFree):
    """Notes what happens to it."""

    events: list[str]

    def train(self) -> None:
        self.events.append("train")
        super().train()

    def eval(self) -> None:
        self.events.append("eval")
        super().eval()

    def step(self, closure: Any = None) -> Any:
        loss = super().step(closure)
        self.events.append("step")
        return loss


class Measure(pl.Callback):
    """Looks at the weights where callbacks do."""

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        (optimizer,) = trainer.optimizers
        assert isinstance(optimizer, Watched)
        optimizer.events.append("measured")


def events(folder: Path, accumulate: int) -> tuple[FlowMatching, list[str]]:
    """Two optimizer steps, and what happened in them."""
    Watched.events = []
    module = FlowMatching(dit(), optimizer=lambda parameters: Watched(parameters, lr=0.01), ema=EMA(0.5))
    module.backbone.blocks[0].register_forward_hook(lambda *_: Watched.events.append("forward"))
    trainer = pl.Trainer(
        max_steps=2, accelerator="cpu", devices=1, accumulate_grad_batches=accumulate, logger=False,
        callbacks=[Measure()], default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=Rows())
    return module, Watched.events


def test_gradients_are_taken_at_one_set_of_weights_and_the_other_is_measured(tmp_path: Path):
    _, happened = events(tmp_path, accumulate=1)
    assert happened == 2 * ["train", "forward", "step", "eval", "measured"]


def test_all_batches_of_a_step_take_their_gradients_at_the_same_weights(tmp_path: Path):
    _, happened = events(tmp_path, accumulate=2)
    assert happened == 2 * ["train", "forward", "measured", "train", "forward", "step", "eval", "measured"]


def test_after_training_the_network_has_the_average():
    """x_2 = x_1 / 2 + z_2 / 2 for equal rates (Defazio et al. 2024, eq. 5): of one weight, by hand."""
    weight = Parameter(torch.tensor([1.0]))
    optimizer = AdamWScheduleFree([weight], lr=0.1, betas=(0.9, 0.999))
    for _ in range(2):
        use_weights(optimizer, to_train=True)
        weight.grad = torch.ones(1)
        optimizer.step()
        use_weights(optimizer, to_train=False)
    z1, z2 = 1 - 0.1, 1 - 0.2  # a constant gradient of 1 is normalised to 1
    torch.testing.assert_close(weight.data, torch.tensor([(z1 + z2) / 2]))


def test_an_optimizer_of_torch_has_one_set_of_weights():
    weight = Parameter(torch.ones(1))
    use_weights(torch.optim.SGD([weight], lr=0.1), to_train=True)
    assert float(weight) == 1


def test_where_the_package_is_missing_its_extra_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "schedulefree", None)
    config = OmegaConf.create({"_target_": "schedulefree.AdamWScheduleFree", "_partial_": True})
    with pytest.raises(ValueError, match=r"schedulefree is not installed: pip install 'flowexp\[schedule-free\]'"):
        build_partial(config)
