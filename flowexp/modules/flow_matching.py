"""Flow matching (FM) as a LightningModule: the base that LCF and MAFM change in one place each."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, OnBlock, State
from flowexp.couplings import Coupling, Independent
from flowexp.draws import StepKey, draw_labels, draw_noise, draw_times, random_class
from flowexp.ema import ExponentialMovingAverage, whole
from flowexp.interpolants import Interpolant, Linear
from flowexp.losses import velocity_error
from flowexp.modules.batch import StepLosses, TrainingBatch
from flowexp.modules.incident import Incident, largest_gradients
from flowexp.modules.sharding import shard_backbone, shard_terms
from flowexp.optimization import Optimization
from flowexp.parameterization import Parameterization, VelocityNetwork
from flowexp.sampling import Sampler, Samples, ssc_warnings, warn_once
from flowexp.terms import Step, Tapped, Term
from flowexp.time_samplers import TimeSampler, Uniform

Parts = dict[str, tuple[float, Tensor]]  # by name: the weight of a part of the loss, and its scalar


class NonFiniteGradientError(RuntimeError):
    """The gradient of a step is NaN or infinite; the weights, the optimizer and the EMA are those before the step."""


class FlowMatching(pl.LightningModule):
    """Trains a network on the flow-matching loss E ||v_theta(x_t, t) - v*||^2 (LCF eq. 4), with an EMA of its weights.

    A subclass is an objective: it changes `target` (what is regressed), `forward_step` (which rows) or `losses` (what
    is added). Terms are added to any objective.

    `conditions` gives the text of the samples of a network that takes text; `guide` is the weaker network of
    autoguidance. Both are None at first.

    Arguments:
        backbone: the network.
        interpolant: the path between data and noise.
        time_sampler: the law of t.
        optimizer: learning rate, weight decay, warm-up, clipping and the EMA's decay.
        sampler: how samples are drawn when they are asked for.
        parameterization: what the network predicts and in which space that is compared; the velocity, by default.
        coupling: which noise is paired with which data.
        terms: further parts of the loss, by name.
        seed: names the random draws of the run; with it, step k is the same whoever runs it.
    """

    def __init__(
        self,
        backbone: Backbone,
        interpolant: Interpolant | None = None,
        time_sampler: TimeSampler | None = None,
        optimizer: Optimization | None = None,
        sampler: Sampler | None = None,
        parameterization: Parameterization | None = None,
        coupling: Coupling | None = None,
        terms: Mapping[str, Term] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.interpolant = interpolant or Linear()
        self.time_sampler = time_sampler or Uniform()
        self.optimization = optimizer or Optimization()
        self.sampler = sampler or Sampler()
        self.parameterization = parameterization or Parameterization()
        self.coupling = coupling or Independent()
        self.terms = nn.ModuleDict(dict(terms or {}))
        for term in self._terms():
            term.attach(backbone)
        self.seed = seed
        self.conditions: Callable[[Sequence[int], torch.device], Tensor | None] | None = None
        self.guide: VelocityNetwork | None = None
        self.ema: ExponentialMovingAverage | None = None
        self.latest: dict[str, Tensor] = {}
        self._accumulated: list[TrainingBatch] = []
        self._ema_to_restore: dict[str, Any] | None = None

    @property
    def objective(self) -> str:
        """The objective's name on the command line."""
        return "fm"

    @property
    def velocity_network(self) -> VelocityNetwork:
        """The network as samplers and diagnostics see it: whatever it predicts, a call gives a velocity."""
        return VelocityNetwork(self.backbone, self.interpolant, self.parameterization)

    # --- the training step -------------------------------------------------------------------------------------------

    def losses(self, batch: TrainingBatch) -> StepLosses:
        """The loss of one batch."""
        step = self.forward_step(batch)
        error = self.error(step)
        return self.total(step, error, {"velocity": (1.0, error.mean())})

    def forward_step(self, batch: TrainingBatch) -> Step:
        """One pass of the network over all rows, with the outputs of the blocks that terms read."""
        t = batch.t_on_device()
        xt = self.interpolant.interpolate(batch.data, batch.noise, t)
        features: dict[int, Tapped] = {}
        state = self.backbone.encode(xt, t, batch.label, on_block=self.tapping(features))
        return self.make_step(batch, xt, t, self.backbone.decode(state), self.target(batch, xt, t), features)

    def target(self, batch: TrainingBatch, xt: Tensor, t: Tensor) -> Tensor:
        """The velocity that is regressed, (B, ...): that of the pair (data, noise)."""
        return self.interpolant.velocity(batch.data, batch.noise, t)

    def tapping(self, features: dict[int, Tapped], rows: Tensor | None = None) -> OnBlock | None:
        """What the backbone calls after each block, so that `features` fills with those that terms read."""
        taps = {tap for term in self._terms() for tap in term.taps}

        def on_block(state: State) -> None:
            if state.block in taps:
                features[state.block] = Tapped(state.tokens, rows)

        return on_block if taps else None

    def make_step(
        self,
        batch: TrainingBatch,
        xt: Tensor,
        t: Tensor,
        output: Tensor,
        target: Tensor,
        features: dict[int, Tapped],
        rows: Tensor | None = None,
    ) -> Step:
        """The record of a pass; output and target belong to `rows`, None for all."""
        at_xt, at_t = (xt, t) if rows is None else (xt[rows], t[rows])
        velocity = self.parameterization.velocity(output, at_xt, at_t, self.interpolant)
        return Step(
            batch.data,
            batch.noise,
            xt,
            t,
            batch.label,
            batch.key,
            self.backbone,
            output,
            velocity,
            target,
            rows,
            features,
            batch.pixels,
        )

    def error(self, step: Step) -> Tensor:
        """Squared error of each regressed row in the space of the parameterization, (R,)."""
        data, noise, xt, t = map(step.regressed, (step.data, step.noise, step.xt, step.t))
        return velocity_error(
            *self.parameterization.compared(step.output, step.target, data, noise, xt, t, self.interpolant)
        )

    def total(self, step: Step, error: Tensor, parts: Parts) -> StepLosses:
        """The weighted sum of an objective's parts and of the terms."""
        parts = parts | {term.name: (term.lam, term(step)) for term in self._terms()}
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        named = {name: part.detach() for name, (_, part) in parts.items()}
        return StepLosses(loss, named, error.detach(), step.regressed(step.t)[: len(error)])

    def _terms(self) -> Iterator[Term]:
        for term in self.terms.values():
            assert isinstance(term, Term)
            yield term

    def draw(self, data: Tensor, label: Tensor, key: StepKey) -> TrainingBatch:
        """Everything random in the step that `key` names, for the rows that this process holds."""
        everyone_t = draw_times(key, self.time_sampler, len(data), self.interpolant.train_interval)
        return TrainingBatch(
            data=data,
            noise=self.coupling.pair(data, draw_noise(key, data)),
            t=everyone_t[key.rows(len(data))],
            label=draw_labels(key, self.backbone, label),
            everyone_t=everyone_t,
            key=key,
        )

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        part = batch_idx % self.trainer.accumulate_grad_batches
        key = StepKey(self.seed, self.global_step, part, self.global_rank, self.trainer.world_size)
        drawn = replace(self.draw(batch["image"], batch["label"], key), pixels=batch.get("pixels"))
        self._accumulated = [*(self._accumulated if part else []), drawn]
        losses = self.losses(drawn)
        self.latest = {"loss": losses.loss.detach(), **losses.terms}
        return {"loss": losses.loss, "error": losses.error, "t": losses.t}

    def describe(self, batch_size: int) -> dict[str, str]:
        """What to know of this objective before step 0, for a global batch of `batch_size`."""
        about = {"time sampler": str(self.time_sampler), "interpolant": self.interpolant.name}
        if self.parameterization != Parameterization():
            about["prediction"] = f"{self.parameterization.prediction}, compared as {self.parameterization.loss_space}"
        if self.coupling != Independent():
            about["coupling"] = type(self.coupling).__name__
        return about | {f"term {term.name}": f"{type(term).__name__}, weight {term.lam:g}" for term in self._terms()}

    # --- sampling ----------------------------------------------------------------------------------------------------

    def sample(self, indices: Sequence[int], seed: int, label: int | None = None, labels: str = "balanced") -> Samples:
        """Draws the samples numbered `indices`; sample i is the same in any batch and on any number of processes.

        A class-conditional network gives sample i the class i mod num_classes, with labels="random" a class drawn for
        it, or `label` to all; a network that takes text gives it the i-th of `conditions`. The weights are those of the
        moment: `with module.averaged():` for the EMA. Warns where VD's limits speak against the sampler's SSC.
        """
        shape = (self.backbone.channels, self.backbone.resolution, self.backbone.resolution)
        for message in ssc_warnings(self.sampler, self.objective, math.prod(shape)):
            warn_once(message)
        return self.sampler.sample(
            self.velocity_network,
            self.interpolant,
            indices,
            shape,
            seed,
            label=self.labels_for(indices, seed, label, labels),
            device=self.device,
            guide=self.guide,
        )

    def labels_for(
        self, indices: Sequence[int], seed: int, label: int | None = None, labels: str = "balanced"
    ) -> Tensor | None:
        """What the samples `indices` are conditioned on, see `sample`; None for an unconditional network."""
        if self.backbone.takes == "text":
            return self._text_for(indices)
        num_classes = self.backbone.num_classes
        if num_classes is None:
            if label is not None:
                raise ValueError(f"label={label} needs a class-conditional network, and this one is unconditional")
            return None
        if label is not None and not 0 <= label < num_classes:
            raise ValueError(f"label must lie in 0..{num_classes - 1}, got {label}")
        if label is not None:
            return torch.full((len(indices),), label, device=self.device)
        classes = [random_class(seed, i, num_classes) if labels == "random" else i % num_classes for i in indices]
        return torch.tensor(classes, device=self.device)

    def _text_for(self, indices: Sequence[int]) -> Tensor:
        found = None if self.conditions is None else self.conditions(indices, self.device)
        if found is None:
            raise ValueError(
                "a network that takes text needs captions: choose a dataset that has some, such as data=coco"
            )
        return found

    # --- optimization and the EMA ------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        optimizer, lr_schedule = self.optimization.create(self.parameters())
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": lr_schedule, "interval": "step"}}

    def configure_model(self) -> None:
        shard_backbone(self.backbone, self.device_mesh)
        shard_terms(self._terms(), self.device_mesh)

    def configure_gradient_clipping(self, optimizer: Any, *args: Any, **kwargs: Any) -> None:
        """Clips, and stops before the weights change if the gradient is not finite."""
        norm = whole(self.optimization.clip(self.parameters()))
        if not torch.isfinite(norm):
            file = self._save_incident()
            raise NonFiniteGradientError(
                f"step {self.global_step}: the gradient norm is {float(norm)} (loss {float(self.latest['loss'])}); "
                "weights, optimizer and EMA are those before this step. Lower optimizer.lr, or look into the step: "
                f"python -m flowexp.replay {file}"
            )
        self.latest["grad_norm"] = norm

    def _save_incident(self) -> Path:
        """Saves the step that has just failed; returns where."""
        rank = f"_rank{self.global_rank}" if self.global_rank else ""
        file = Path(self.trainer.default_root_dir) / f"nonfinite_step_{self.global_step:08d}{rank}.pt"
        Incident(
            step=self.global_step,
            batches=self._accumulated,
            weights={name: whole(value) for name, value in self.state_dict().items()},
            gradients=largest_gradients(self),
            losses={name: float(value) for name, value in self.latest.items()},
            precision=str(self.trainer.precision),
            rng_state=torch.get_rng_state(),
        ).save(file)
        return file

    def optimizer_step(self, *args: Any, **kwargs: Any) -> None:
        super().optimizer_step(*args, **kwargs)
        self.after_step()

    def after_step(self) -> None:
        """What follows each update of the weights: the EMA, and terms with averages of their own."""
        assert self.ema is not None
        self.ema.update()
        for term in self._terms():
            term.after_step(self.backbone)

    def on_train_start(self) -> None:  # not earlier: a sharded network is restored after it has been set up
        self._create_ema()

    def _create_ema(self) -> None:
        trained = {name: p for name, p in self.backbone.named_parameters() if p.requires_grad}
        self.ema = ExponentialMovingAverage(trained, self.optimization.ema_decay, self.optimization.ema_warmup)
        if self._ema_to_restore is not None:
            self.ema.load_state_dict(self._ema_to_restore)
            self._ema_to_restore = None

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

    # --- checkpoints: `state_dict` holds the weights as trained, `ema` their average ----------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.ema is not None:
            checkpoint["ema"] = self.ema.state_dict()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        self._ema_to_restore = checkpoint.get("ema")
        self.ema = None
