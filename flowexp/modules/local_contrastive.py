"""Local Contrastive Flow (LCF): flow matching above T_min, contrastive feature alignment below it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from flowexp.backbones import State
from flowexp.draws import draw_noise
from flowexp.losses import feature_vectors, local_contrastive_error
from flowexp.modules.batch import StepLosses, TrainingBatch
from flowexp.modules.flow_matching import FlowMatching
from flowexp.modules.gathering import gather_rows
from flowexp.randomness import keyed_generator
from flowexp.terms import Step, Tapped
from flowexp.time import as_noise_level


@dataclass(frozen=True)
class _Split:
    """Rows of a batch on either side of T_min, and what is needed to average over the global batch."""

    low: Tensor
    regressed: Tensor
    low_share: float
    regressed_share: float
    any_low: bool


class LocalContrastiveFlow(FlowMatching):
    """LCF, Algorithm 1: rows with t >= T_min are regressed (eq. 12), rows below are contrasted (eq. 14).

    One pass serves both: every row runs to block `tap`, the regressed rows go on to the head, and the positives
    h(x_{T_min}) run to `tap` without gradient. Averages are over the rows of the global batch, so that several
    processes train what one would; a batch without a row below T_min is normal and trains on the first term alone.

    Arguments:
        T_min: threshold, of 1000 (20) or as a noise level (0.02).
        tau: temperature of the contrast.
        lam: weight of the contrastive term (lambda in eq. 15).
        tap: block whose output is h, from 1; None takes two thirds of the depth (8 of 12, as LCF).
        denominator: "alg1" sums over all rows, the anchor's own too; "eq14" leaves it out; "infonce" adds the positive.
        pooling: "flatten" compares all tokens, "mean" their average.
        normalize: whether feature vectors are scaled to length 1.
        distance_scale: "mean" divides the squared distance by the feature dimension, "sum" does not.
        shared_noise: whether x_t and x_{T_min} share their noise (two points of one trajectory).
        regress_below: whether rows below T_min are regressed as well (LCF Figure 6's "L_flow + L_cons"). With lam 0 and
            without it, flow matching is only cut off at T_min (Figure 6's "L_FM only").
        contrasts: "global" contrasts with the rows of all processes, "local" with those of the anchor's own.
        parts: those of FlowMatching.
    """

    def __init__(
        self,
        *,
        T_min: float = 20,
        tau: float = 0.5,
        lam: float = 1.0,
        tap: int | None = None,
        denominator: str = "alg1",
        pooling: str = "flatten",
        normalize: bool = False,
        distance_scale: str = "mean",
        shared_noise: bool = True,
        regress_below: bool = False,
        contrasts: str = "global",
        **parts: Any,
    ) -> None:
        super().__init__(**parts)
        if tau <= 0:
            raise ValueError(f"objective.tau must be positive, got {tau}")
        if lam < 0:
            raise ValueError(f"objective.lam must be at least 0, got {lam}")
        if contrasts not in ("global", "local"):
            raise ValueError(f"objective.contrasts must be global or local, got {contrasts!r}")
        self.t_min = as_noise_level(T_min)
        self.lam = lam
        self.tap = self.backbone.default_tap if tap is None else tap
        if not 1 <= self.tap <= self.backbone.depth:
            raise ValueError(f"objective.tap must lie in 1..{self.backbone.depth}, got {self.tap}")
        self.contrast: dict[str, Any] = {"tau": tau, "denominator": denominator, "distance_scale": distance_scale}
        self.reading: dict[str, Any] = {"pooling": pooling, "normalize": normalize}
        self.shared_noise = shared_noise
        self.regress_below = regress_below
        self.contrasts = contrasts

    @property
    def objective(self) -> str:
        return "lcf"

    def describe(self, batch_size: int) -> dict[str, str]:
        draws = self.time_sampler(100_000, keyed_generator(self.seed), self.interpolant.train_interval)
        share = float((draws < self.t_min).float().mean())
        return {
            **super().describe(batch_size),
            "T_min": f"{self.t_min:g} (noise level)",
            "anchors expected per batch": f"{share * batch_size:.1f}",
            "batches without an anchor": f"{100 * (1 - share) ** batch_size:.1f} %",
            "features": f"output of block {self.tap} of {self.backbone.depth}",
        }

    def losses(self, batch: TrainingBatch) -> StepLosses:
        split = self._split(batch)
        t = batch.t_on_device()
        xt = self.interpolant.interpolate(batch.data, batch.noise, t)
        features: dict[int, Tapped] = {}
        state = self.backbone.encode(xt, t, batch.label, tap=self.tap, on_block=self.tapping(features))
        step, error, velocity = self._regress(batch, state, xt, t, split, features)
        parts = {"velocity": (1.0, velocity)}
        if self.lam:
            parts["contrast"] = (self.lam, self._contrast(batch, state.tokens, split))
        return self.total(step, error, parts)

    def _split(self, batch: TrainingBatch) -> _Split:
        """Which rows are low is decided on the CPU, where t was drawn, for the global batch."""
        everyone = batch.t if batch.everyone_t is None else batch.everyone_t
        num_low, processes = int((everyone < self.t_min).sum()), len(everyone) / len(batch.t)
        low = (batch.t < self.t_min).nonzero().squeeze(1)
        regressed = torch.arange(len(batch.t)) if self.regress_below else (batch.t >= self.t_min).nonzero().squeeze(1)
        num_regressed = len(everyone) if self.regress_below else len(everyone) - num_low
        return _Split(
            low=low.to(batch.data.device, non_blocking=True),
            regressed=regressed.to(batch.data.device, non_blocking=True),
            low_share=processes / max(1, num_low),  # gradients are averaged over processes, rows over the global batch
            regressed_share=processes / max(1, num_regressed),
            any_low=num_low > 0,
        )

    def _regress(
        self, batch: TrainingBatch, state: State, xt: Tensor, t: Tensor, split: _Split, features: dict[int, Tapped]
    ) -> tuple[Step, Tensor, Tensor]:
        """Algorithm 1, line 6. A process without a regressed row still sends one through, with weight 0."""
        rows = split.regressed if len(split.regressed) else torch.zeros_like(split.low[:1])
        output = self.backbone.decode(state.select(rows), on_block=self.tapping(features, rows))
        step = self.make_step(batch, xt, t, output, self.target(batch, xt, t)[rows], features, rows)
        error = self.error(step)
        weight = split.regressed_share if len(split.regressed) else 0.0
        return step, error[: len(split.regressed)], weight * error.sum()

    def _contrast(self, batch: TrainingBatch, tokens: Tensor, split: _Split) -> Tensor:
        """Algorithm 1, line 7. Without an anchor anywhere there is nothing to compute; every process knows it."""
        if not split.any_low:
            return tokens.new_zeros((), dtype=torch.float32)
        features = feature_vectors(tokens, **self.reading)
        everyone, first_row = self._contrasts(features)
        error = local_contrastive_error(
            features[split.low],
            self._positives(batch, split.low),
            everyone,
            own=split.low + first_row,
            **self.contrast,
        )
        return split.low_share * error.sum()

    def _contrasts(self, features: Tensor) -> tuple[Tensor, int]:
        """What anchors are contrasted with, (B, F), and the row at which this process's rows begin in it."""
        if self.contrasts == "local":
            return features.detach(), 0
        return gather_rows(features.detach())

    @torch.no_grad()
    def _positives(self, batch: TrainingBatch, low: Tensor) -> Tensor:
        """h(x_{T_min}) of the anchors, (K, F)."""
        noise = batch.noise if self.shared_noise else draw_noise(batch.key, batch.data, fresh=True)
        data, t = batch.data[low], torch.full((len(low),), self.t_min, device=low.device)
        xt = self.interpolant.interpolate(data, noise[low], t)
        label = None if batch.label is None else batch.label[low]
        state = self.backbone.encode(xt, t, label, tap=self.tap)
        return feature_vectors(state.tokens, **self.reading)
