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
_ROWS_PER_FEATURE = 4  # that show how features vary together
_FLOOR = 0.1  # of a feature's variance, 1: separable classes bend the loss less and less, and steps would be too short


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
    strongest on, each from the weights of the one before, until the held-out loss rises. The steps are those of
    `_Curvature`'s coordinates: features that vary together would take three times as many.

    features: (N, D). labels: (N,) integers.
    """
    mean, std = _scale(features)
    order = torch.randperm(len(labels), generator=keyed_generator(seed, _SPLIT)).to(labels.device)
    held_out, fitted = order.split([round(HELD_OUT * len(order)), len(order) - round(HELD_OUT * len(order))])
    standard = (features - mean) / std
    curvature = _Curvature.of(standard, num_classes)
    part, best, previous = _Problem(standard[fitted], labels[fitted], curvature), None, None
    for penalty in penalties:
        previous, _ = part.solve(penalty, previous)
        loss = _held_out_loss(previous, standard[held_out], labels[held_out])
        if best is not None and loss >= best[0]:
            break
        best = (loss, penalty, previous)
    assert best is not None
    loss, penalty, weights = best
    weights, left = _Problem(standard, labels, curvature).solve(penalty, weights)
    weight = weights[:-1] / std[:, None]
    return LogisticFit(weight, weights[-1] - mean @ weight, penalty, left, loss)


def _scale(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation, (D,) each; 1 for a feature that never varies, such as a shorter one's padding."""
    std, mean = torch.std_mean(features, dim=0, correction=0)
    return mean, std.where(std > 1e-6 * std.max(), 1.0)


def _held_out_loss(weights: Tensor, features: Tensor, labels: Tensor) -> float:
    return float(F.cross_entropy(features @ weights[:-1] + weights[-1], labels))


@dataclass(frozen=True)
class _Curvature:
    """How much the loss bends along W at zero weights: X^T X / N / C, the features' part of its second derivative.

    gram: X^T X / N (D, D) float64, of as many rows as show it. num_classes: C.
    """

    gram: Tensor
    num_classes: int

    @classmethod
    def of(cls, features: Tensor, num_classes: int) -> _Curvature:
        """That of standardised features (N, D)."""
        rows = features[:: max(1, len(features) // (_ROWS_PER_FEATURE * features.shape[1]))]
        return cls((rows.T @ rows / len(rows)).double(), num_classes)

    def root(self, penalty: float) -> Tensor:
        """Lower triangular L (D, D) float64, L L^T being the curvature of the penalised loss and a part of `_FLOOR`."""
        ridge = (penalty + _FLOOR / self.num_classes) * torch.eye(*self.gram.shape).to(self.gram)
        return torch.linalg.cholesky(self.gram / self.num_classes + ridge)


class _Problem:
    """The penalised loss of weights (D + 1, C), the last row the bias, over standardised features (N, D)."""

    def __init__(self, features: Tensor, labels: Tensor, curvature: _Curvature) -> None:
        self.features, self.labels, self.curvature = features, labels, curvature
        self.shape = (features.shape[1] + 1, curvature.num_classes)

    def solve(self, penalty: float, start: Tensor | None) -> tuple[Tensor, float]:
        """The best weights, and the share of the gradient's norm at zero weights that is left.

        L-BFGS works on L^T W, along which the loss bends about alike in all directions; it ends by W's gradient.
        """
        from scipy.optimize import minimize  # a third of a second, which no command should wait for
        from threadpoolctl import threadpool_limits

        zero = self.features.new_zeros(self.shape)
        _, first = self.loss(zero, penalty)
        enough = TOLERANCE * float(first.abs().max())
        coordinates, last = _Coordinates(self.curvature.root(penalty), self.curvature.num_classes), first

        def objective(flat: object) -> tuple[float, object]:
            nonlocal last
            loss, last = self.loss(coordinates.weights(flat).to(zero), penalty)
            return loss, coordinates.gradient(last).flatten().cpu().numpy()

        def stop_at_end(intermediate_result: object) -> None:
            if float(last.abs().max()) <= enough:
                raise StopIteration

        begin = coordinates.of(zero if start is None else start).flatten().cpu().numpy()
        options = {"maxiter": MOST_ITERATIONS, "gtol": 0.0, "ftol": 0.0}
        # SciPy's threads would spin on the cores that PyTorch's need: a fit would take five to twelve times as long
        with threadpool_limits(1, user_api="blas"):
            end = minimize(objective, begin, jac=True, method="L-BFGS-B", callback=stop_at_end, options=options)
        weights = coordinates.weights(end.x).to(zero)
        return weights, float(self.loss(weights, penalty)[1].norm() / first.norm())

    def loss(self, weights: Tensor, penalty: float) -> tuple[float, Tensor]:
        """The penalised loss in nats, and its gradient (D + 1, C)."""
        total, gradient = 0.0, weights.new_zeros(self.shape[::-1])
        for rows, answers in zip(self.features.split(_BATCH), self.labels.split(_BATCH), strict=True):
            # A row per class: over ten columns a softmax and the product with the features take three times as long.
            logs = torch.log_softmax(torch.addmm(weights[-1], rows, weights[:-1]).T.contiguous(), dim=0)
            total -= float(logs.gather(0, answers[None]).sum(dtype=torch.float64))
            residual = logs.exp_()
            residual[answers, torch.arange(len(answers), device=answers.device)] -= 1
            gradient[:, :-1].addmm_(residual, rows)
            gradient[:, -1] += residual.sum(1)
        gradient = (gradient / len(self.labels)).T
        gradient[:-1] += penalty * weights[:-1]
        return total / len(self.labels) + penalty / 2 * float(weights[:-1].double().square().sum()), gradient


@dataclass(frozen=True)
class _Coordinates:
    """V = L^T W (float64), and beside it the bias by its own curvature, 1 / C."""

    root: Tensor
    num_classes: int

    def of(self, weights: Tensor) -> Tensor:
        """V (D + 1, C) of weights."""
        wide = weights.double()
        return torch.cat([self.root.T @ wide[:-1], wide[-1:] / self.num_classes**0.5])

    def weights(self, flat: object) -> Tensor:
        """The weights (D + 1, C) of V, flat."""
        moved = torch.as_tensor(flat, device=self.root.device).view(-1, self.num_classes)
        inner = torch.linalg.solve_triangular(self.root.T, moved[:-1], upper=True)
        return torch.cat([inner, moved[-1:] * self.num_classes**0.5])

    def gradient(self, of_weights: Tensor) -> Tensor:
        """The gradient by V (D + 1, C), from that by the weights."""
        wide = of_weights.double()
        inner = torch.linalg.solve_triangular(self.root, wide[:-1], upper=False)
        return torch.cat([inner, wide[-1:] * self.num_classes**0.5])
