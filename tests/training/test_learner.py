"""What a step changes, in what order, and that one whose gradient is not finite changes nothing."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins.precision import MixedPrecision
from torch import Tensor

sys.path.append(str(Path(__file__).parent))
from training_processes import Rows, dit

from flowexp.objectives import FlowMatching, LocalContrastiveFlow, NonFiniteGradientError
from flowexp.objectives.terms import SelfDistillation, Step, Term
from flowexp.training.ema import EMA
from flowexp.training.nonfinite_step import Incident

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")
BAD = 2  # the step whose batch is NaN


class Poison(pl.Callback):
    """Makes the batches of step `BAD` NaN."""

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, batch: Any, batch_idx: int) -> None:
        if trainer.global_step == BAD:
            batch["image"].fill_(torch.nan)


def fit(module: FlowMatching, folder: Path, num_steps: int, accumulate: int = 1, *callbacks: pl.Callback) -> Any:
    """Trains it, and returns all that training changes."""
    trainer = pl.Trainer(
        max_steps=num_steps, accelerator="cpu", devices=1, accumulate_grad_batches=accumulate, logger=False,
        callbacks=list(callbacks), default_root_dir=folder, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False,
    )  # fmt: skip
    try:
        trainer.fit(module, datamodule=Rows())
    finally:
        moments = trainer.optimizers[0].state_dict()["state"]
        assert module.ema is not None
        found = {"weights": module.state_dict(), "moments": moments, "average": module.ema.state_dict()}
    return found


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    return torch.equal(a, b) if isinstance(a, Tensor) else a == b


def make(terms: bool = False, **options: Any) -> FlowMatching:
    parts = {"terms": {"self_distillation": SelfDistillation(tap=2, hidden=8, dim=4, momentum=0.5)}} if terms else {}
    adamw = partial(torch.optim.AdamW, lr=1e-3)
    return LocalContrastiveFlow(backbone=dit(), T_min=400, seed=3, optimizer=adamw, ema=EMA(0.5), **parts, **options)


@pytest.mark.parametrize("num_steps", [BAD + 1, BAD + 3], ids=["the last step", "a step on the way"])
@pytest.mark.parametrize("accumulate", [1, 2])
@pytest.mark.parametrize("terms", [False, True], ids=["", "with a slow copy"])
def test_a_nan_step_changes_nothing_and_names_itself(tmp_path: Path, num_steps: int, accumulate: int, terms: bool):
    expected = fit(make(terms), tmp_path / "before", BAD, accumulate)
    module, caught = make(terms), pytest.raises(NonFiniteGradientError, match=f"step {BAD}: the gradient norm is nan")
    found: dict[str, Any] = {}

    class Keep(pl.Callback):
        def on_exception(self, trainer: pl.Trainer, pl_module: Any, exception: BaseException) -> None:
            found.update(
                weights=pl_module.state_dict(), moments=trainer.optimizers[0].state_dict()["state"],
                average=pl_module.ema.state_dict(),
            )  # fmt: skip

    with caught:
        fit(module, tmp_path, num_steps, accumulate, Poison(), Keep())
    assert same(found, expected)
    incident = Incident.load(tmp_path / f"nonfinite_step_{BAD:08d}.pt")
    assert len(incident.batches) == accumulate and all(batch.key.step == BAD for batch in incident.batches)
    assert all(batch.data.isnan().all() for batch in incident.batches)
    assert same(incident.weights, expected["weights"])
    assert (
        all(value != value for value in incident.gradients.values())
        and incident.losses["loss"] != incident.losses["loss"]
    )


class Follows(Term):
    """A term with something of its own that follows the weights, and that its forward pass reads."""

    name = "follows"

    def __init__(self) -> None:
        super().__init__(lam=0.0)
        self.events: list[str] = []

    def forward(self, step: Step) -> Tensor:
        self.events.append("forward")
        return 0 * step.velocity.sum()

    def after_step(self, backbone: Any) -> None:
        self.events.append("after")


def test_what_a_forward_pass_reads_has_followed_before_it(tmp_path: Path):
    term = Follows()
    fit(FlowMatching(dit(), terms={"follows": term}), tmp_path, 3)
    assert term.events == ["forward", "after"] * 3


def test_the_average_is_up_to_date_whenever_it_is_read(tmp_path: Path):
    seen = []

    class Averages(pl.Callback):
        def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
            with pl_module.averaged():
                seen.append(pl_module.ema.num_updates)

    fit(make(), tmp_path, 3, 1, Averages())
    assert seen == [1, 2, 3]


def test_a_scaled_loss_is_refused():
    """A GradScaler begins with gradients that overflow, which end a run; they would also be clipped while scaled."""
    plugin = MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    trainer = pl.Trainer(max_steps=1, accelerator="cpu", plugins=[plugin], logger=False, enable_checkpointing=False)
    with pytest.raises(ValueError, match=r"precision=16-mixed scales the loss .* take bf16-mixed"):
        trainer.fit(make(), datamodule=Rows())
