"""What learns: the weights of a network and of loss terms, how they are updated, averaged, sharded and saved."""

from __future__ import annotations

import hashlib
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.draws import TrainingBatch
from flowexp.ema import ExponentialMovingAverage, whole
from flowexp.modules.incident import NonFiniteGradientError, path_of_incident, save_incident
from flowexp.modules.sharding import shard_backbone, shard_terms
from flowexp.modules.step_losses import StepLosses
from flowexp.optimization import Optimization
from flowexp.terms import Term


class Learner(pl.LightningModule):
    """A network and loss terms whose weights are trained; what they are trained on, a subclass's `training_step` says.

    A checkpoint's `state_dict` holds the weights as trained, its `ema` their average.

    Arguments:
        backbone: the network.
        terms: loss terms, by name; their weights are trained with the network's and not averaged.
        optimizer: learning rate, weight decay, warm-up, clipping and the EMA's decay.
    """

    def __init__(
        self, backbone: Backbone, terms: Mapping[str, Term] | None = None, optimizer: Optimization | None = None
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.terms = nn.ModuleDict(dict(terms or {}))
        for term in self.each_term():
            term.attach(backbone)
        self.optimization = optimizer or Optimization()
        self.ema: ExponentialMovingAverage | None = None
        self.latest: dict[str, Tensor] = {}  # of a step: the loss, its parts and the gradient's norm, for callbacks
        self._accumulated: list[tuple[TrainingBatch, dict[str, Tensor]]] = []  # batches of a step, with their losses
        self._digest: str | None = None
        self._ema_to_restore: dict[str, Any] | None = None

    def each_term(self) -> Iterator[Term]:
        for term in self.terms.values():
            assert isinstance(term, Term)
            yield term

    def note(self, batch: TrainingBatch, losses: StepLosses) -> None:
        """Keeps a batch of a step with its losses: for callbacks, and for a gradient that is not finite."""
        self._accumulated.append((batch, {"loss": losses.loss.detach(), **losses.terms}))
        self.latest = _means([parts for _, parts in self._accumulated])

    # --- how the weights are updated ----------------------------------------------------------------------------------

    def configure_model(self) -> None:
        shard_backbone(self.backbone, self.device_mesh)
        shard_terms(self.each_term(), self.device_mesh)

    def configure_optimizers(self) -> Any:
        optimizer, lr_schedule = self.optimization.create(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_schedule, "interval": "step"}}

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clips, and stops before the weights change if the gradient is not finite."""
        norm = whole(self.optimization.clip(self.parameters()))
        if not torch.isfinite(norm):
            file = save_incident(self, [batch for batch, _ in self._accumulated], self.latest)
            losses = self.trainer.strategy.all_gather(self.latest["loss"]).reshape(-1).tolist()  # of all processes
            failed = next((rank for rank, loss in enumerate(losses) if loss - loss != 0), self.global_rank)
            file = path_of_incident(file.parent, self.global_step, failed)
            raise NonFiniteGradientError(
                f"step {self.global_step}: the gradient norm is {float(norm)} (loss {losses[failed]}); "
                "weights, optimizer and EMA are those before this step. Lower optimizer.lr, or look into the step: "
                f"python -m flowexp.replay {shlex.quote(str(file))}"
            )
        self.latest["grad_norm"] = norm

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps along the mean gradient of the batches that the step has accumulated, however few."""

        def gradient_of_all_batches() -> Any:
            loss = optimizer_closure()
            self._divide_by_what_is_there()
            return loss

        super().optimizer_step(epoch, batch_idx, optimizer, gradient_of_all_batches)
        self.after_step()

    def _divide_by_what_is_there(self) -> None:
        """Lightning divides by `accumulate_grad_batches`; the last step of an epoch may have fewer batches."""
        if len(self._accumulated) == (divisor := self.trainer.accumulate_grad_batches):
            return
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(divisor / len(self._accumulated))

    def after_step(self) -> None:
        """What follows each update of the weights: the EMA, and terms with averages of their own."""
        assert self.ema is not None
        self._accumulated, self._digest = [], None
        self.ema.update()
        for term in self.each_term():
            term.after_step(self.backbone)

    # --- how they are averaged and saved ------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has its EMA weights, is in eval mode and builds no graph."""
        if self.ema is None and self._ema_to_restore is not None:
            self._create_ema()
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            with torch.no_grad():
                if self.ema is None:
                    yield
                else:
                    with self.ema.swapped():
                        yield
        finally:
            self.backbone.train(was_training)

    def digest(self) -> str:
        """A hash of the EMA weights, which are those that are measured. All processes must call it."""
        if self._digest is None:
            content = hashlib.sha256()
            with self.averaged():
                for name, value in self.backbone.state_dict().items():
                    content.update(name.encode())
                    content.update(whole(value).cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
            self._digest = content.hexdigest()[:16]
        return self._digest

    def on_fit_start(self) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                f"trainer.precision={self.trainer.precision} scales the loss until a gradient overflows, "
                "and a run ends at a gradient that is not finite: take bf16-mixed, or 32-true"
            )

    def on_train_start(self) -> None:  # not earlier: a sharded network is restored after it has been set up
        self._create_ema()
        self._accumulated, self._digest = [], None

    def _create_ema(self) -> None:
        trained = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        self.ema = ExponentialMovingAverage(trained, self.optimization.ema_decay, self.optimization.ema_warmup)
        if self._ema_to_restore is not None:
            self.ema.load_state_dict(self._ema_to_restore)
            self._ema_to_restore = None

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None:
            checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._ema_to_restore = checkpoint.get("ema")
        self.ema = self._digest = None


def _means(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each part of the loss over the batches of a step; of one batch its own numbers."""
    if len(losses) == 1:
        return dict(losses[0])
    names = dict.fromkeys(name for parts in losses for name in parts)
    return {name: torch.stack([parts[name] for parts in losses if name in parts]).mean() for name in names}
