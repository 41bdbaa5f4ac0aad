"""Self-representation alignment (SRA, Jiang et al. 2025, arXiv 2505.02831): a network that is its own teacher."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.losses import smooth_alignment_error
from flowexp.objectives.terms.slow_copy import follow, trunk_of
from flowexp.training.loss_term import Step, Tapped, Term, check_tap

DRAW = 3  # which of a step's draws for terms this is


class SelfAlignment(Term):
    """Tokens of an early block at noise level t, projected, should be those of a later block of a slow copy at less.

    The copy sees the same data and noise at level t - t_max u, u ~ U(0, 1), not below 0, under the same label. The
    projector is an MLP d -> 2 d -> d with SiLU between. What is compared is the smooth L1 distance, as in the authors'
    code; their paper's default is the same.

    The copy (the blocks up to `teacher_tap`) is a submodule without gradient: it is saved, so that a resumed run is the
    same. It costs a pass to `teacher_tap` without gradient.

    Arguments:
        lam: the term's weight; 0.2 in the authors' code, for the first epochs, after which it falls.
        tap: block that learns, from 1; None is a third of the depth (4 of 12; of 28 the paper has 8).
        teacher_tap: block of the copy that teaches; None is two thirds of the depth (8 of 12; of 28 the paper has 20).
        t_max: by how much the copy's noise level lies lower at most.
        beta: below which distance the smooth L1 is a square.
        momentum: of the copy, per optimizer step.
        interpolant: the path by which the copy's input is noised; None is linear.
    """

    name = "self_alignment"
    projector: nn.Module
    copy: nn.Module

    def __init__(
        self,
        lam: float = 0.2,
        tap: int | None = None,
        teacher_tap: int | None = None,
        t_max: float = 0.2,
        beta: float = 0.05,
        momentum: float = 0.9999,
        interpolant: Interpolant | None = None,
    ) -> None:
        super().__init__(lam)
        if not (0 <= t_max <= 1 and 0 <= momentum <= 1 and beta > 0):
            raise ValueError(
                f"terms.self_alignment needs t_max and momentum in [0, 1] and a positive beta, got {t_max}, {momentum} "
                f"and {beta}"
            )
        self.tap = tap
        self.teacher_tap = teacher_tap
        self.t_max = t_max
        self.beta = beta
        self.momentum = momentum
        self.interpolant = interpolant or Linear()

    @property
    def taps(self) -> tuple[int, ...]:
        return () if self.tap is None else (self.tap,)

    def attach(self, backbone: Backbone) -> None:
        self.tap = check_tap(self.name, max(1, round(backbone.depth / 3)) if self.tap is None else self.tap, backbone)
        teacher_tap = backbone.default_tap if self.teacher_tap is None else self.teacher_tap
        self.teacher_tap = check_tap(self.name, teacher_tap, backbone)
        width, teacher_width = backbone.width_at(self.tap), backbone.width_at(self.teacher_tap)
        hidden = width + teacher_width
        self.projector = nn.Sequential(nn.Linear(width, hidden), nn.SiLU(), nn.Linear(hidden, teacher_width))
        self.copy = trunk_of(backbone, self.teacher_tap)

    def forward(self, step: Step) -> Tensor:
        tapped = step.features[self.taps[0]]
        with torch.no_grad():
            teacher = self._teacher_tokens(step, tapped)
        return tapped.share * smooth_alignment_error(self.projector(tapped.tokens), teacher, self.beta).mean()

    @torch.no_grad()
    def after_step(self, backbone: Backbone) -> None:
        """The copy moves towards the network."""
        follow([(self.copy, backbone)], self.momentum)

    def _teacher_tokens(self, step: Step, tapped: Tapped) -> Tensor:
        """The copy's tokens (R, N, D) of the tapped rows, at their lower levels."""
        assert isinstance(self.copy, Backbone) and self.teacher_tap is not None
        batch, t = step.batch, tapped.of(self._lower_levels(step))
        xt = self.interpolant.interpolate(tapped.of(batch.data), tapped.of(batch.noise), t)
        label = None if batch.label is None else tapped.of(batch.label)
        return self.copy.features(xt, t, label, taps=[self.teacher_tap])[self.teacher_tap]

    def _lower_levels(self, step: Step) -> Tensor:
        """The copy's noise level for each row of this process, (B,); drawn for the global batch, as all draws are."""
        key, num = step.batch.key, len(step.t)
        u = torch.rand(key.world_size * num, generator=key.for_term(DRAW))[key.rows(num)]
        return (step.t - self.t_max * u.to(step.t)).clamp(min=0)
