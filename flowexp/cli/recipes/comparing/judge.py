"""A judge of small pictures: how surely one that has only seen real ones would call a picture by a class."""

from __future__ import annotations

from itertools import combinations
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

Rows = np.ndarray  # (N, D) in 0..16


class Judge:
    """Support vector machines of all pairs of classes, each with Platt's probability, coupled as Price et al. (1995).

    p_i = 1 / (sum_j 1 / r_ij - (k - 2)) of the probabilities r_ij of class i against j, normalised over the k classes.
    A picture of no class lies between those of each pair, and no class is sure; one machine for each class against all
    others is sure of noise.

    Arguments:
        pictures: real ones, uint8 (N, C, H, W), of a few hundred pixels at most.
        labels: their classes, (N,).
    """

    def __init__(self, pictures: Tensor, labels: Tensor) -> None:
        rows, classes = as_rows(pictures), labels.cpu().numpy()
        self.num_classes = int(classes.max()) + 1
        self._pairs: dict[tuple[int, int], Any] = {}
        for one, other in combinations(range(self.num_classes), 2):
            chosen = np.isin(classes, (one, other))
            self._pairs[one, other] = _machine().fit(rows[chosen], classes[chosen] == one)

    def likelihoods(self, pictures: Tensor) -> np.ndarray:
        """Probabilities of the classes, (N, classes)."""
        rows = as_rows(pictures)
        inverse = np.full((len(rows), self.num_classes), 2.0 - self.num_classes)
        for (one, other), machine in self._pairs.items():
            share = np.clip(machine.predict_proba(rows)[:, 1], 1e-6, 1 - 1e-6)
            inverse[:, one] += 1 / share
            inverse[:, other] += 1 / (1 - share)
        coupled: np.ndarray = 1 / inverse
        return coupled / coupled.sum(axis=1, keepdims=True)


def as_rows(pictures: Tensor) -> Rows:
    """Stored pictures (N, C, H, W) as rows (N, C H W) of 0 to 16, the scale of scikit-learn's digits."""
    rows: Rows = (pictures.flatten(1).double() * 16 / 255).cpu().numpy()
    return rows


def _machine() -> Any:
    from sklearn.calibration import CalibratedClassifierCV
    from sklearn.svm import SVC

    return CalibratedClassifierCV(SVC(C=10, gamma=0.001), ensemble=False)
