"""Multinomial logistic regression to convergence: what a linear map can read off features, whatever their scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.flow.randomness import keyed_generator

PENALTIES = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6)  # from the strongest; the best one lies inside for all features tried
HELD_OUT = 0.2  # share of the training images that chooses the penalty
TOLERANCE = 1e-3  # largest entry of the gradient at the end over that at zero weights
MOST_ITERATIONS = 1000
_SPLIT = 2  # keeps the held-out part apart from the streams of other probes
_BATCH = 8192  # rows that have logits at once


@dataclass(frozen=True)
class LogisticFit:
    """A fitted classifier: logits are `features @ weight + bias`.

    weight: (D, C). bias: (C,). penalty: the L2 penalty, of the weights of standardised features. gradient_left: norm of
    the penalised loss's gradient at the end over that at zero weights. held_out_loss: mean cross-entropy of the part of
    the training images that chose the penalty, in nats.
    """

    weight: Tensor
    bias: Tensor
    penalty: float
    gradient_left: float
    held_out_loss: float


def fit_logistic(
    features: Tensor, labels: Tensor, num_classes: int, seed: int = 0, penalties: Sequence[float] = PENALTIES
) -> LogisticFit:
    """Multinomial logistic regression with an L2 penalty that a held-out fifth of the images chooses.

    Minimises the mean cross-entropy + penalty / 2 ||W||^2 over features of mean 0 and variance 1, by L-BFGS (SciPy's)
    until no entry of the gradient exceeds `TOLERANCE` of its largest at the start. Penalties are tried from the
    strongest on, each from the weights of the one before, until the held-out loss rises.

    features: (N, D). labels: (N,) integers.
    """
    mean, std = _scale(features)
    order = torch.randperm(len(labels), generator=keyed_generator(seed, _SPLIT)).to(labels.device)
    held_out, fitted = order.split([round(HELD_OUT * len(order)), len(order) - round(HELD_OUT * len(order))])
    standard = (features - mean) / std
    part, best, previous = _Problem(standard[fitted], labels[fitted], num_classes), None, None
    for penalty in penalties:
        previous, _ = part.solve(penalty, previous)
        loss = _held_out_loss(previous, standard[held_out], labels[held_out])
        if best is not None and loss >= best[0]:
            break
        best = (loss, penalty, previous)
    assert best is not None
    loss, penalty, weights = best
    weights, left = _Problem(standard, labels, num_classes).solve(penalty, weights)
    weight = weights[:-1] / std[:, None]
    return LogisticFit(weight, weights[-1] - mean @ weight, penalty, left, loss)


def _scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (D,) each; 1 for a feature that never varies, such as a shorter one's padding."""
    std, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, std.where(std > 1e-6 * std.max(), 1.0)


def _held_out_loss(weights: Tensor, features: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(features @ weights[:-1] + weights[-1], labels))


class _Problem:
    """The penalised loss of weights (D + 1, C), the last row the bias, over standardised features (N, D)."""

    def __init__(self, features: Tensor, labels: Tensor, num_classes: int) -> None:
        self.features, self.labels = features, labels
        self.shape = (features.shape[1] + 1, num_classes)

    def solve(self, penalty: float, start: Tensor | None) -> tuple[Tensor, float]:
        """The best weights, and the share of the gradient's norm at zero weights that is left."""
        from scipy.optimize import minimize  # a third of a second, which no command should wait for

        zero = self.features.new_zeros(self.shape)
        _, first = self.loss(zero, penalty)

        def objective(flat: object) -> tuple[float, object]:
            weights = torch.as_tensor(flat, dtype=zero.dtype).view(self.shape).to(zero.device)
            loss, gradient = self.loss(weights, penalty)
            return loss, gradient.flatten().double().cpu().numpy()

        begin = (zero if start is None else start).flatten().double().cpu().numpy()
        options = {"maxiter": MOST_ITERATIONS, "gtol": TOLERANCE * float(first.abs().max()), "ftol": 0.0}
        end = minimize(objective, begin, jac=True, method="L-BFGS-B", options=options)
        weights = torch.as_tensor(end.x, dtype=zero.dtype).view(self.shape).to(zero.device)
        return weights, float(self.loss(weights, penalty)[1].norm() / first.norm())

    def loss(self, weights: Tensor, penalty: float) -> tuple[float, Tensor]:
        """The penalised loss in nats, and its gradient (D + 1, C)."""
        total, gradient = 0.0, torch.zeros_like(weights)
        for rows, answers in zip(self.features.split(_BATCH), self.labels.split(_BATCH), strict=True):
            logs = torch.log_softmax(torch.addmm(weights[-1], rows, weights[:-1]), dim=1)
            total -= float(logs.gather(1, answers[:, None]).sum(dtype=torch.float64))
            residual = logs.exp_()
            residual[torch.arange(len(answers), device=answers.device), answers] -= 1
            gradient[:-1].addmm_(rows.T, residual)
            gradient[-1] += residual.sum(0)
        gradient /= len(self.labels)
        gradient[:-1] += penalty * weights[:-1]
        return total / len(self.labels) + penalty / 2 * float(weights[:-1].double().square().sum()), gradient
