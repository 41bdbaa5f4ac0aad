"""Flow matching (FM) as a LightningModule: draw, target, losses. LCF, MAFM and ExFM change it in one place each."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.losses import velocity_error
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.flow.sampler import Sampler, Samples, ssc_warnings, warn_once
from flowexp.flow.time_samplers import TimeSampler, Uniform
from flowexp.objectives.terms import Step, Tapped, Term
from flowexp.training.couplings import Coupling, Independent
from flowexp.training.ema import EMA
from flowexp.training.learner import Learner
from flowexp.training.lr_schedules import MakeSchedule
from flowexp.training.optimization import MakeOptimizer
from flowexp.training.sample_labels import Captions, classes_for, text_for
from flowexp.training.step_draws import StepKey, TrainingBatch, draw_labels, draw_noise, draw_times
from flowexp.training.step_losses import Parts, StepLosses


class FlowMatching(Learner):
    """Trains a network on the flow-matching loss E ||v_theta(x_t, t) - v*||^2 (LCF eq. 4), with an EMA of its weights.

    A subclass is an objective: it changes `target` (what is regressed), `forward_step` (which rows) or `losses` (what
    is added), and has a name, `objective`. Terms are added to any objective. How weights are updated,
    averaged and saved is the Learner's part.

    `conditions` gives the text of the samples of a network that takes text; `guide` is the weaker network of
    autoguidance. Both are None at first.

    Arguments:
        backbone: the network.
        interpolant: the path between data and noise.
        time_sampler: the law of t.
        optimizer, lr_schedule, ema: how the weights are updated and averaged, see `Learner`.
        sampler: how samples are drawn.
        parameterization: what the network predicts and in which space that is compared; the velocity, by default.
        coupling: which noise is paired with which data.
        terms: further parts of the loss, by name.
        seed: of the random draws of the run, which make step k the same on any machine and after any resume.
    """

    objective: ClassVar[str] = "fm"

    def __init__(
        self,
        backbone: Backbone,
        interpolant: Interpolant | None = None,
        time_sampler: TimeSampler | None = None,
        optimizer: MakeOptimizer | None = None,
        lr_schedule: MakeSchedule | None = None,
        ema: EMA | None = None,
        sampler: Sampler | None = None,
        parameterization: Parameterization | None = None,
        coupling: Coupling | None = None,
        terms: Mapping[str, Term] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(backbone, terms, optimizer, lr_schedule, ema)
        self.interpolant = interpolant or Linear()
        self.time_sampler = time_sampler or Uniform()
        self.sampler = sampler or Sampler()
        self.parameterization = parameterization or Parameterization()
        self.coupling = coupling or Independent()
        self.seed = seed
        self.conditions: Captions | None = None
        self.guide: VelocityNetwork | None = None

    def describe(self, batch_size: int) -> dict[str, str]:
        """The settings worth a line before step 0, for a global batch of `batch_size`."""
        about = {"time sampler": str(self.time_sampler), "interpolant": self.interpolant.name}
        if self.parameterization != Parameterization():
            about["prediction"] = f"{self.parameterization.prediction}, compared as {self.parameterization.loss_space}"
        if self.coupling != Independent():
            about["coupling"] = type(self.coupling).__name__
        return about | {f"term {t.name}": f"{type(t).__name__}, weight {t.lam:g}" for t in self.terms.values()}

    def loss_names(self) -> tuple[str, ...]:
        """The parts of the loss that `losses` names; an objective with further ones adds them."""
        return ("velocity", *(term.name for term in self.terms.values()))

    # --- the training step: draw, losses, log -------------------------------------------------------------------------

    def training_step(self, batch: dict[str, Tensor], batch_idx: int) -> dict[str, Tensor]:
        part = batch_idx % self.trainer.accumulate_grad_batches
        key = StepKey(self.seed, self.global_step, part, self.global_rank, self.trainer.world_size)
        data = batch["image"].to(self.dtype)  # float64 in a training in 64-true
        drawn = self.draw(data, batch["label"], key, batch.get("pixels"))
        losses = self.losses(drawn)
        self.note(drawn, losses)
        return {"loss": losses.loss, "error": losses.error, "t": losses.t}

    def draw(self, data: Tensor, label: Tensor, key: StepKey, pixels: Tensor | None = None) -> TrainingBatch:
        """Every random number of the step `key`, for the rows of this process: data (B, C, H, W), label (B, ...)."""
        everyone_t = draw_times(key, self.time_sampler, len(data), self.interpolant.train_interval)
        return TrainingBatch(
            data=data,
            noise=self.coupling.pair(data, draw_noise(key, data)),
            t=everyone_t[key.rows(len(data))],
            label=draw_labels(key, self.backbone, label),
            everyone_t=everyone_t,
            key=key,
            pixels=pixels,
        )

    def losses(self, batch: TrainingBatch) -> StepLosses:
        """LCF eq. 4: the mean of ||v_theta(x_t, t) - v*||^2 over the rows of the batch."""
        step = self.forward_step(batch)
        error = self.error(step)
        return self.total(step, error, {"velocity": (1.0, error.mean())})

    def forward_step(self, batch: TrainingBatch) -> Step:
        """x_t, one pass of the network over all rows, and v*."""
        t = batch.t.to(batch.data.device, non_blocking=True)
        xt = self.interpolant.interpolate(batch.data, batch.noise, t)
        state = self.backbone.encode(xt, t, batch.label, taps=self.taps)
        output = self.backbone.decode(state)
        features = {tap: Tapped(tokens) for tap, tokens in state.tapped.items()}
        return Step(batch, xt, t, self.velocity_network, output, self.target(batch, xt, t), features)

    def target(self, batch: TrainingBatch, xt: Tensor, t: Tensor) -> Tensor:
        """v*, (B, ...): the velocity of the pair (data, noise)."""
        return self.interpolant.velocity(batch.data, batch.noise, t)

    def error(self, step: Step) -> Tensor:
        """||v_theta - v*||^2 of each regressed row, (R,); of another prediction, in the space of its loss."""
        if self.parameterization.prediction == self.parameterization.loss_space == "velocity":
            return velocity_error(step.output, step.target)
        data, noise, xt, t = map(step.regressed, (step.batch.data, step.batch.noise, step.xt, step.t))
        where = (data, noise, xt, t, self.interpolant)
        return velocity_error(*self.parameterization.compared(step.output, step.target, *where))

    def total(self, step: Step, error: Tensor, parts: Parts) -> StepLosses:
        """The weighted sum of an objective's parts and of the terms; error: (R,), of the first regressed rows."""
        parts = parts | {term.name: (term.lam, term(step)) for term in self.terms.values()}
        loss = torch.stack([weight * part for weight, part in parts.values()]).sum()
        named = {name: part.detach() for name, (_, part) in parts.items()}
        if self.parameterization.loss_space != "velocity":  # curves over t compare velocities, whatever the loss is
            with torch.no_grad():
                error = velocity_error(step.velocity, step.attainable)[: len(error)]
        return StepLosses(loss, named, error.detach(), step.regressed(step.t)[: len(error)])

    # --- sampling -----------------------------------------------------------------------------------------------------

    @property
    def velocity_network(self) -> VelocityNetwork:
        """The network as samplers and diagnostics see it: whatever it predicts, a call gives a velocity."""
        return VelocityNetwork(self.backbone, self.interpolant, self.parameterization)

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

    def labels_in_words(self, labels: str) -> str:
        """What samples are conditioned on, in the words of a protocol card, for a choice of `labels`; see `sample`."""
        return {"class": labels, "text": "captions"}.get(self.backbone.takes, "none")

    def labels_for(
        self, indices: Sequence[int], seed: int, label: int | None = None, labels: str = "balanced"
    ) -> Tensor | None:
        """Classes (B,) or text (B, L, D) of the samples `indices`, see `sample`; None where nothing conditions them."""
        if self.backbone.takes == "text":
            return text_for(indices, self.conditions, self.device, label)
        classes = classes_for(indices, self.backbone.num_classes, seed, label, labels)
        return None if classes is None else torch.tensor(classes, device=self.device)
