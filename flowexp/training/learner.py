"""What learns: the weights of a network and of loss terms, how they are updated, averaged, sharded and saved."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import partial
from typing import Any, cast

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.records.files import fingerprint
from flowexp.training.ema import EMA, ExponentialMovingAverage, whole
from flowexp.training.fsdp import is_sharded, shard_backbone, shard_terms
from flowexp.training.loss_term import Term
from flowexp.training.lr_schedules import MakeSchedule, RunLength, constant, create_schedule
from flowexp.training.nonfinite_step import NonFiniteGradientError, path_of_incident, save_incident
from flowexp.training.optimization import ADAMW, MakeOptimizer, clip_gradients, create_optimizer, use_weights
from flowexp.training.publishing import PublishSteps
from flowexp.training.step_draws import TrainingBatch
from flowexp.training.step_losses import StepLosses

RAW = "raw"  # the weights as trained, where one could also choose an average


class Learner(pl.LightningModule):
    """A network and loss terms whose weights are trained; a subclass adds the loss, in `training_step`.

    A checkpoint's `state_dict` holds the weights as trained, its `ema` their average, `further_emas` those of further
    decays. The gradient's norm is limited by the Trainer's `gradient_clip_val`. Every `log_every_n_steps` of the
    Trainer the loss and its parts are logged, and from then on in `trainer.callback_metrics`.

    The averages are part of the module, and not Lightning's `WeightAveraging` or `torch.optim.swa_utils`: they stay in
    fp32 whatever the weights are, warm up, are split with the weights by FSDP2, and serve without a Trainer.

    Arguments:
        backbone: the network.
        terms: loss terms, by name; their weights are trained with the network's and not averaged.
        optimizer: a torch optimizer but for its parameters, such as `functools.partial(torch.optim.SGD, lr=0.01)`; None
            is AdamW as in LCF A.4.2.
        lr_schedule: from the optimizer to a scheduler of torch, advanced after each step, see
            `flowexp.training.lr_schedules`; None is a constant rate.
        ema: the averages of the weights; None is one with the decay 0.9999.
    """

    def __init__(
        self,
        backbone: Backbone,
        terms: Mapping[str, Term] | None = None,
        optimizer: MakeOptimizer | None = None,
        lr_schedule: MakeSchedule | None = None,
        ema: EMA | None = None,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.terms = cast(Mapping[str, Term], nn.ModuleDict(dict(terms or {})))
        for term in self.terms.values():
            term.attach(backbone)
        self.taps = {tap for term in self.terms.values() for tap in term.taps}  # blocks that terms read
        self.make_optimizer = optimizer or ADAMW
        self.make_lr_schedule = lr_schedule or constant
        self.averaging = ema or EMA()
        self.averages: dict[float, ExponentialMovingAverage] = {}  # by decay
        self.weights: float | str | None = None  # that `averaged` uses: a decay, RAW, or None for the first average
        self.latest: dict[str, Tensor] = {}  # of a step: the loss, its parts and the gradient's norm, for callbacks
        self.published: dict[str, int] = {}  # the step at which each number last reached trainer.callback_metrics
        self._lr = 0.0  # of the latest step; behind it the optimizer has the next one's
        self._accumulated: list[tuple[TrainingBatch, dict[str, Tensor]]] = []  # batches of a step, with their losses
        self._fingerprints: dict[float | str | None, str] = {}  # of the weights that can be measured
        self._saved_averages: list[dict[str, Any]] = []

    # --- what is logged -----------------------------------------------------------------------------------------------

    def note(self, batch: TrainingBatch, losses: StepLosses) -> None:
        """Keeps a batch of a step with its losses: for callbacks, and for a gradient that is not finite."""
        self._accumulated.append((batch, {"loss": losses.loss.detach(), **losses.terms}))
        self.latest = _means([parts for _, parts in self._accumulated])

    def publish(self, values: Mapping[str, float]) -> None:
        """Puts numbers of this step where callbacks that watch one look for it, `trainer.callback_metrics`.

        Not by `self.log`, which Lightning forbids at the end of training, and which would write them a second time.
        """
        tensors = {name: torch.tensor(float(value)) for name, value in values.items()}
        self.trainer.callback_metrics.update(tensors)
        self.trainer.logged_metrics.update(tensors)
        self.published |= dict.fromkeys(values, self.global_step)

    def configure_callbacks(self) -> list[pl.Callback]:
        return [PublishSteps()]

    def step_values(self) -> dict[str, float]:
        """The latest step's losses, gradient norm and learning rate by the names under which they are logged.

        Losses are means over all processes, which must all call this and have equally many rows.
        """
        values = _over_processes(self.trainer, self.latest)
        return {f"train/{name}": value for name, value in values.items()} | {"train/lr": self._lr}

    # --- how the weights are updated ----------------------------------------------------------------------------------

    def configure_model(self) -> None:
        shard_backbone(self.backbone, self.device_mesh)
        shard_terms(self.terms.values(), self.device_mesh)

    def configure_optimizers(self) -> Any:
        optimizer = create_optimizer(self.make_optimizer, self.named_parameters())
        length = partial(run_length, self)
        return {
            "optimizer": optimizer,
            "lr_scheduler": create_schedule(self.make_lr_schedule, optimizer, length),
        }

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clip by the Trainer's keys, and stop before the weights change if the gradient is not finite."""
        norm = whole(clip_gradients(self.parameters(), gradient_clip_val, gradient_clip_algorithm))
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

    def on_train_batch_start(self, *_: Any) -> None:
        for optimizer in self.trainer.optimizers:
            use_weights(optimizer, to_train=True)

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """Steps along the mean gradient of the batches that the step has accumulated, however few."""

        def gradient_of_all_batches() -> Any:
            loss = optimizer_closure()
            self._divide_by_what_is_there()
            self._lr = float(optimizer.param_groups[0]["lr"])
            return loss

        super().optimizer_step(epoch, batch_idx, optimizer, gradient_of_all_batches)
        for each in self.trainer.optimizers:
            use_weights(each, to_train=False)
        self.after_step()

    def _divide_by_what_is_there(self) -> None:
        """Lightning divides by `accumulate_grad_batches`; the last step of an epoch may have fewer batches."""
        if len(self._accumulated) == (divisor := self.trainer.accumulate_grad_batches):
            return
        for parameter in self.parameters():
            if parameter.grad is not None:
                parameter.grad.mul_(divisor / len(self._accumulated))

    def after_step(self) -> None:
        """What follows each update of the weights: the EMA, and terms that average weights."""
        self._accumulated, self._fingerprints = [], {}
        for average in self.averages.values():
            average.update()
        for term in self.terms.values():
            term.after_step(self.backbone)

    # --- how they are averaged and saved ------------------------------------------------------------------------------

    @property
    def ema(self) -> ExponentialMovingAverage | None:
        """The average that `averaged` uses; None where that is the weights as trained, or before there is one."""
        if self.weights == RAW:
            return None
        return next((self.averages[decay] for decay in self.averages if self.weights in (None, decay)), None)

    def choose_weights(self, which: float | str | None) -> None:
        """Decides what `averaged` uses from now on: the average with a decay, "raw", or with None the first average.

        Raises:
            ValueError: a decay without an average.
        """
        known = [*self.averaging.decays, RAW]
        if which is not None and which not in known:
            raise ValueError(f"ema must be one of {', '.join(map(str, known))}, which this run has; got {which}")
        self.weights = which

    @property
    def weights_name(self) -> str:
        """What `averaged` uses, for the protocol beside a number: `ema`, of several `ema 0.999`, or `raw`."""
        decays = self.averaging.decays
        if self.weights == RAW or not decays:
            return RAW
        return "ema" if len(decays) == 1 else f"ema {decays[0] if self.weights is None else self.weights}"

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Within it the network has its EMA weights in fp32, is in eval mode and builds no graph."""
        if not self.averages and self._saved_averages:
            self._create_averages()
        was_training = self.backbone.training
        self.backbone.eval()
        try:
            swapped = nullcontext() if self.ema is None else self.ema.swapped()
            with torch.no_grad(), swapped, _in_fp32(self.backbone):
                yield
        finally:
            self.backbone.train(was_training)

    def fingerprint(self) -> str:
        """That of the weights that `averaged` gives and that are measured. All processes must call it."""
        if self.weights not in self._fingerprints:
            with self.averaged():
                weights = ((name, whole(value)) for name, value in self.backbone.state_dict().items())
                self._fingerprints[self.weights] = fingerprint.of_weights(weights)
        return self._fingerprints[self.weights]

    def on_fit_start(self) -> None:
        if getattr(self.trainer.precision_plugin, "scaler", None) is not None:
            raise ValueError(
                f"trainer.precision={self.trainer.precision} scales the loss until a gradient overflows, "
                "and a run ends at a gradient that is not finite: take bf16-mixed, or 32-true"
            )

    def on_train_start(self) -> None:  # not earlier: a sharded network is restored after it has been set up
        self._create_averages()
        self._accumulated, self._fingerprints = [], {}

    def _create_averages(self) -> None:
        """Averages that begin at the weights, or go on from those of the checkpoint that was loaded."""
        trained = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        self.averages = self.averaging.create(trained)
        for decay, state in matched(self.averaging.decays, self._saved_averages).items():
            self.averages[decay].load_state_dict(state)
        self._saved_averages = []

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        states = [average.state_dict() for average in self.averages.values()]
        if states:
            checkpoint["ema"] = states[0]
        if states[1:]:
            checkpoint["further_emas"] = states[1:]

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        first = [checkpoint["ema"]] if "ema" in checkpoint else []
        self._saved_averages = [*first, *checkpoint.get("further_emas", [])]
        self.averages, self._fingerprints = {}, {}


def _means(losses: list[dict[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each part of the loss over the batches of a step; of one batch, its numbers."""
    if len(losses) == 1:
        return dict(losses[0])
    names = dict.fromkeys(name for parts in losses for name in parts)
    return {name: torch.stack([parts[name] for parts in losses if name in parts]).mean() for name in names}


def _over_processes(trainer: pl.Trainer, values: dict[str, Tensor]) -> dict[str, float]:
    """The means over all processes; all must call it."""
    if trainer.world_size == 1:
        return {name: float(value) for name, value in values.items()}
    together = torch.stack([value.detach().double() for value in values.values()])
    means = trainer.strategy.reduce(together, reduce_op="mean")
    return dict(zip(values, means.tolist(), strict=True))


def matched(decays: tuple[float, ...], saved: list[dict[str, Any]]) -> dict[float, dict[str, Any]]:
    """The saved average at which each decay continues: that of the same decay; for a new one, the first.

    An average that begins at trained weights would lag behind the others for as long as its window.
    """
    by_decay = {state.get("decay"): state for state in reversed(saved)}
    return {decay: by_decay.get(decay, saved[0]) for decay in decays} if saved else {}


def run_length(module: pl.LightningModule) -> RunLength:
    """The length of the run that `module` is trained in.

    Not from Lightning's `estimated_stepping_batches` where there is another way: reading it makes the loader before the
    place in the data is restored (Lightning #20550).
    """
    trainer = module.trainer
    batches = getattr(getattr(trainer, "datamodule", None), "steps_per_epoch", None)
    if batches is None:
        _ = trainer.estimated_stepping_batches  # makes the loader
        batches = int(min(trainer.num_training_batches, 2**31))  # a loader without an end has no epochs
    else:
        limit = trainer.limit_train_batches
        batches = min(batches, limit) if isinstance(limit, int) else int(batches * limit)
    per_epoch = max(1, math.ceil(batches / trainer.accumulate_grad_batches))
    ends = [trainer.max_steps, (trainer.max_epochs or -1) * per_epoch]
    return RunLength(per_epoch, min((end for end in ends if end > 0), default=None))


@contextmanager
def _in_fp32(network: nn.Module) -> Iterator[None]:
    """Within it a network that is trained in fp64 computes in fp32, as it will when its run is evaluated later.

    A sharded one stays as it is: FSDP keeps the type that its weights had.
    """
    wide = {name: tensor.clone() for name, tensor in network.state_dict().items() if tensor.dtype == torch.float64}
    if not wide or is_sharded(network):
        yield
        return
    network.float()
    try:
        yield
    finally:
        network.double()
        network.load_state_dict(wide, strict=False)
