"""Contrastive flow matching (Delta-FM, Stoica et al. 2025, arXiv 2506.05350): flows of other pairs are avoided."""

from __future__ import annotations

import torch
from torch import Tensor

from flowexp.flow.losses import velocity_error
from flowexp.training.loss_term import Step, Term

DRAW = 2  # which of a step's draws for terms this is


class ContrastiveFlow(Term):
    """Minus the squared distance between the velocity and the target of another pair (data, noise) of the batch.

    With lam the loss is ||v - v*||^2 - lam ||v - v~||^2, the paper's objective: v~ is the velocity of an independent
    pair, here that of the row `shift` places further, with one random shift for the batch, so that no row is its own
    contrast. The pointwise minimiser is (m - lam m~) / (1 - lam) with m~ the mean of all targets: an affine map of the
    flow-matching velocity where labels do not matter, and no minimum exists from lam = 1 on.

    Contrasts are rows of the same process, as in the authors' code. A single row has none: 0.

    Arguments:
        lam: the term's weight, below 1; the paper's is 0.05.
    """

    name = "contrastive_flow"

    def __init__(self, lam: float = 0.05) -> None:
        super().__init__(lam)
        if lam >= 1:
            raise ValueError(f"terms.contrastive_flow.lam must be below 1, where a minimum exists, got {lam}")

    def forward(self, step: Step) -> Tensor:
        num = len(step.target)
        if num < 2:
            return 0.0 * step.velocity.sum()
        shift = int(torch.randint(1, num, (), generator=step.batch.key.for_term(DRAW)))
        contrast = step.target.detach().roll(shift, dims=0)
        return -step.share * velocity_error(step.velocity, contrast).mean()
