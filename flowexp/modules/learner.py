"""What learns: the weights of a network and of loss terms, how they are updated, averaged, sharded and saved."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.draws import TrainingBatch
from flowexp.ema import ExponentialMovingAverage, whole
from flowexp.modules.incident import NonFiniteGradientError, save_incident
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
        self.latest: dict[str, Tensor] = {}  # the loss, its parts and the gradient's norm, for callbacks that log them
        self._accumulated: list[TrainingBatch] = []
        self._ema_to_restore: dict[str, Any] | None = None

    def each_term(self) -> Iterator[Term]:
        for term in self.terms.values():
            assert isinstance(term, Term)
            yield term

    def note(self, batch: TrainingBatch, losses: StepLosses) -> None:
        """Keeps what a step computed for callbacks, and its batches in case the gradient turns out not to be finite."""
        self._accumulated = [*(self._accumulated if batch.key.part else []), batch]
        self.latest = {"loss": losses.loss.detach(), **losses.terms}

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
            file = save_incident(self, self._accumulated, self.latest)
            raise NonFiniteGradientError(
                f"step {self.global_step}: the gradient norm is {float(norm)} (loss {float(self.latest['loss'])}); "
                "weights, optimizer and EMA are those before this step. Lower optimizer.lr, or look into the step: "
                f"python -m flowexp.replay {shlex.quote(str(file))}"
            )
        self.latest["grad_norm"] = norm

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """What follows each update of the weights: the EMA, and terms with averages of their own."""
        assert self.ema is not None
        self.ema.update()
        for term in self.each_term():
            term.after_step(self.backbone)

    # --- how they are averaged and saved ------------------------------------------------------------------------------

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has its EMA weights in fp32, is in eval mode and builds no graph."""
        if self.ema is None and self._ema_to_restore is not None:
            self._create_ema()
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            swapped = nullcontext() if self.ema is None else self.ema.swapped()
            with torch.no_grad(), swapped, _in_fp32(self.backbone):
                yield
        finally:
            self.backbone.train(was_training)

    def on_fit_start(self) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                f"trainer.precision={self.trainer.precision} scales the loss until a gradient overflows, "
                "and a run ends at a gradient that is not finite: take bf16-mixed, or 32-true"
            )

    def on_train_start(self) -> None:  # not earlier: a sharded network is restored after it has been set up
        self._create_ema()

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
        self.ema = None


@contextmanager
def _in_fp32(network: nn.Module) -> Iterator[None]:
    """Within it a network that is trained in fp64 computes in fp32, as it will when its run is evaluated later."""
    wide = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.dtype == torch.float64}
    if not wide:
        yield
        return
    network.float()
    try:
        yield
    finally:
        network.double()
        network.load_state_dict(wide, strict=False)
