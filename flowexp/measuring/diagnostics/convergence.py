"""Whether a linear probe has converged: by the gradient that its fit leaves, whatever the scale of the features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

OVER_CHANCE = 2.0  # times what the choice of training images explains; beyond it a longer fit learns of the classes
LEFT = 0.5  # of the gradient of a probe that knows nothing; where images are few, chance explains any gradient
GONE = 0.05  # of that gradient; where so little is left, of separable classes, it is the last few images' alone
_RANK = 1e-8  # eigenvalues of a covariance below this share of the largest are rounding
_BATCH = 8192


@dataclass(frozen=True)
class ProbeFit:
    """How a linear probe was fitted to the training images of one cell of the grid.

    train_accuracy: share of correct classes. gradient_left: |g| / |g0|, the training loss's gradient at the end over
    that of uniform probabilities. over_chance: |g|^2 over its mean if the weights were the population's best, where
    only the choice of images moves it. Both are 0 at the optimum, and of whitened features: no invertible linear map of
    the features changes them. NaN where features are not finite. penalty: the L2 penalty of standardised features'
    weights, which then belongs to the loss whose gradient is meant, and `over_chance` is None; None without one.

    One step lowers the training loss by |g|^2 at least (Boehning 1992: the Hessian of a softmax is at most half the
    covariance of the features), so that a large gradient is accuracy that was left behind. Updates times learning rate
    say nothing of it: what counts is their product with the spread of the features.
    """

    train_accuracy: float
    gradient_left: float
    over_chance: float | None
    penalty: float | None = None

    @property
    def converged(self) -> bool:
        """Whether fitting on could teach the probe next to nothing that is true of other images."""
        if self.gradient_left <= GONE or self.over_chance is None:
            return self.gradient_left <= GONE
        return self.over_chance <= OVER_CHANCE and self.gradient_left <= LEFT


@torch.no_grad()
def gradient_at_end(features: Tensor, labels: Tensor, weight: Tensor, bias: Tensor) -> tuple[float, float]:
    """`gradient_left` and `over_chance` of one head, see `ProbeFit`.

    features: (N, D). labels: (N,) integers. weight: (D, C). bias: (C,).
    """
    mean, whitening = _whitening(features)
    num, classes = len(labels), len(bias)
    end, start = (mean.new_zeros(whitening.shape[1] + 1, classes) for _ in range(2))
    noise = 0.0
    for rows, answers in zip(features.split(_BATCH), labels.split(_BATCH), strict=True):
        white = F.pad((rows.double() - mean) @ whitening, (0, 1), value=1.0)  # the last column is the bias
        truth = F.one_hot(answers, classes).double()
        residual = torch.softmax(rows.double() @ weight.double() + bias.double(), dim=1) - truth
        end += white.T @ residual
        start += white.T @ (1 / classes - truth)
        noise += float((white.square().sum(dim=1) * residual.square().sum(dim=1)).sum())
    left, first = float(end.norm()) / num, float(start.norm()) / num
    return left / first if first else float("nan"), left**2 * num**2 / noise if noise else 0.0


def _whitening(features: Tensor) -> tuple[Tensor, Tensor]:
    """The mean (D,) and the matrix (D, R) that makes centred features of rank R uncorrelated with variance 1."""
    mean = features.mean(dim=0, dtype=torch.float64)
    outer = mean.new_zeros(len(mean), len(mean))
    for rows in features.split(_BATCH):
        centred = rows.double() - mean
        outer.addmm_(centred.T, centred)
    if not outer.isfinite().all():
        return mean, torch.full_like(outer, float("nan"))
    values, vectors = torch.linalg.eigh(outer / len(features))
    wanted = values > _RANK * values[-1]
    return mean, vectors[:, wanted] / values[wanted].sqrt()
