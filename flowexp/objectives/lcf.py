"""Local Contrastive Flow (LCF): flow matching above T_min, contrastive feature alignment below it."""

from __future__ import annotations

import warnings
from typing import Any, Literal

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.losses import feature_vectors, local_contrastive_error
from flowexp.flow.losses.contrastive import Denominator, DistanceScale, Pooling
from flowexp.flow.time import LEVELS, as_noise_level, of_thousand
from flowexp.objectives.fm import FlowMatching
from flowexp.objectives.row_split import RowSplit, split_rows
from flowexp.training.loss_term import Step, Tapped
from flowexp.training.parallel.rows import gather_rows
from flowexp.training.step_draws import TrainingBatch, draw_noise
from flowexp.training.step_losses import StepLosses

DEFAULT_T_MIN = 20  # LCF section 6.2, CIFAR-10


class LocalContrastiveFlow(FlowMatching):
    """LCF, Algorithm 1: rows with t >= T_min are regressed (eq. 12), rows below are contrasted (eq. 14).

    One pass serves both: every row runs to block `tap`, the regressed rows go on to the head, and the positives
    h(x_{T_min}) run to `tap` without gradient. Averages are over the rows of the global batch, so that several
    processes train what one would; a batch without a row below T_min is normal and trains on the first term alone.

    Arguments:
        T_min: threshold in the paper's unit, of 1000: 20 is the noise level 0.02, and 0.5 is 0.0005.
        t_min: the same as a noise level in [0, 1], in place of T_min. None for both is T_min = 20.
        tau: temperature of the contrast.
        lam: weight of the contrastive term (lambda in eq. 15).
        tap: block whose output is h, from 1; None takes two thirds of the depth (8 of 12, as LCF).
        denominator: "alg1" sums over all rows, the anchor's too; "eq14" leaves that out; "infonce" adds the positive.
        pooling: "flatten" compares all tokens, "mean" their average.
        normalize: whether feature vectors are scaled to length 1.
        distance_scale: "mean" divides the squared distance by the feature dimension, "sum" does not.
        shared_noise: whether x_t and x_{T_min} share their noise (two points of one trajectory).
        positive_at: "T_min" has h(x_{T_min}) as the positive, "clean" h(x_0), the "noiseless embedding" of section 5.
        regress_below: whether rows below T_min are regressed as well (LCF Figure 6's "L_flow + L_cons"). With lam 0 and
            without it, flow matching is only cut off at T_min (Figure 6's "L_FM only").
        contrasts: "global" contrasts with the rows of all processes, "local" with those of the anchor's process.
        parts: those of FlowMatching.
    """

    objective = "lcf"

    def __init__(
        self,
        *,
        T_min: float | None = None,
        t_min: float | None = None,
        tau: float = 0.5,
        lam: float = 1.0,
        tap: int | None = None,
        denominator: Denominator = "alg1",
        pooling: Pooling = "flatten",
        normalize: bool = False,
        distance_scale: DistanceScale = "mean",
        shared_noise: bool = True,
        positive_at: Literal["T_min", "clean"] = "T_min",
        regress_below: bool = False,
        contrasts: Literal["global", "local"] = "global",
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        if tau <= 0:
            raise ValueError(f"objective.tau must be positive, got {tau}")
        if lam < 0:
            raise ValueError(f"objective.lam must be at least 0, got {lam}")
        check_choice("objective.contrasts", contrasts, ("global", "local"))
        check_choice("objective.positive_at", positive_at, ("T_min", "clean"))
        self.t_min = threshold(T_min, t_min)
        if self.t_min >= 1 and not regress_below:
            raise ValueError(
                f"objective.T_min must be below {LEVELS}, or t_min below 1: no row would be left to be regressed; "
                f"got {T_min if t_min is None else t_min}"
            )
        self.positive_level = self.t_min if positive_at == "T_min" else 0.0
        self.lam = lam
        self.tap = self.backbone.default_tap if tap is None else tap
        if not 1 <= self.tap <= self.backbone.depth:
            raise ValueError(f"objective.tap must lie in 1..{self.backbone.depth}, got {self.tap}")
        self.contrast: dict[str, Any] = {"tau": tau, "denominator": denominator, "distance_scale": distance_scale}
        self.reading: dict[str, Any] = {"pooling": pooling, "normalize": normalize}
        self.shared_noise = shared_noise
        self.regress_below = regress_below
        self.contrasts = contrasts

    def describe(self, batch_size: int) -> dict[str, str]:
        share = self.time_sampler.share_below(self.t_min, self.interpolant.train_interval)
        return {
            **super().describe(batch_size),
            "T_min": f"{LEVELS * self.t_min:g} of {LEVELS} (noise level {self.t_min:g})",
            "anchors expected per batch": f"{share * batch_size:.1f}",
            "batches without an anchor": f"{100 * self.time_sampler.chance_of_none(share, batch_size):.1f} %",
            "features": f"output of block {self.tap} of {self.backbone.depth}",
        }

    def loss_names(self) -> tuple[str, ...]:
        return (*super().loss_names(), *(["contrast"] if self.lam else []))

    def losses(self, batch: TrainingBatch) -> StepLosses:
        """Algorithm 1, lines 3 to 8."""
        t = batch.t.to(batch.data.device, non_blocking=True)
        xt = self.interpolant.interpolate(batch.data, batch.noise, t)  # line 3
        split = split_rows(self.t_min, batch, self.regress_below)  # line 4
        rows, share = split.regressed, split.regressed_share
        state = self.backbone.encode(xt, t, batch.label, tap=self.tap, taps=self.taps)  # line 5: z
        remaining = state if len(rows) == len(t) else state.select(rows)  # where no row is low there is nothing to copy
        output = self.backbone.decode(remaining)  # line 5: v_theta
        features = {tap: Tapped(x) if tap <= self.tap else Tapped(x, rows, share) for tap, x in state.tapped.items()}
        target = self.target(batch, xt, t)[rows]
        step = Step(batch, xt, t, self.velocity_network, output, target, features, rows, share)
        error = self.error(step)
        parts = {"velocity": (1.0, split.regressed_weight * error.sum())}  # line 6
        if self.lam:
            parts["contrast"] = (self.lam, self._contrast(batch, state.tokens, split))  # line 7
        return self.total(step, error[: split.num_regressed], parts)  # line 8

    def _contrast(self, batch: TrainingBatch, tokens: Tensor, split: RowSplit) -> Tensor:
        """Line 7. Without an anchor on any process it is 0 and takes no exchange between them."""
        if not split.any_low:
            return tokens.new_zeros((), dtype=torch.float32)
        features = feature_vectors(tokens, **self.reading)
        contrasts, first_row = self._contrasts(features)
        anchors, own = features[split.low], split.low + first_row
        positives = self._positives(batch, split.low)
        return split.low_weight * local_contrastive_error(anchors, positives, contrasts, own, **self.contrast).sum()

    @torch.no_grad()
    def _positives(self, batch: TrainingBatch, low: Tensor) -> Tensor:
        """Line 5, a = h(x_{T_min}) of the anchors, or h(x_0), (K, F).

        A process without an anchor sends its first row: attention on CUDA may refuse an empty batch (PyTorch #133780).
        """
        rows = low if len(low) else low.new_zeros(1)
        noise = batch.noise if self.shared_noise else draw_noise(batch.key, batch.data, fresh=True)
        data, t = batch.data[rows], torch.full((len(rows),), self.positive_level, device=rows.device)
        xt = self.interpolant.interpolate(data, noise[rows], t)
        label = None if batch.label is None else batch.label[rows]
        state = self.backbone.encode(xt, t, label, tap=self.tap)
        return feature_vectors(state.tokens, **self.reading)[: len(low)]

    def _contrasts(self, features: Tensor) -> tuple[Tensor, int]:
        """What anchors are contrasted with, (B, F), and the row at which this process's rows begin in it."""
        if self.contrasts == "local":
            return features.detach(), 0
        return gather_rows(features.detach())


def threshold(T_min: float | None, t_min: float | None) -> float:
    """The noise level that T_min, of 1000, or t_min, in [0, 1], gives; 0.02 for neither.

    Warns of a T_min below 1, which is a level that one batch in a thousand reaches.

    Raises:
        ValueError: both are given, or one lies outside of its range.
    """
    if T_min is not None and t_min is not None:
        raise ValueError(
            f"give objective.T_min, of {LEVELS}, or objective.t_min, a noise level in [0, 1], and null for the other; "
            f"got {T_min} and {t_min}"
        )
    if t_min is not None:
        return as_noise_level(t_min, "objective.t_min")
    level = of_thousand(DEFAULT_T_MIN if T_min is None else T_min, "objective.T_min")
    if 0 < level < 1 / LEVELS:
        warnings.warn(
            f"objective.T_min={T_min} counts of {LEVELS} and is the noise level {level:g}, below which hardly a row "
            f"lies: for the level {T_min} give objective.T_min=null objective.t_min={T_min}",
            stacklevel=2,
        )
    return level
