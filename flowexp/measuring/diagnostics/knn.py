"""The k-nearest-neighbour probe: what a layer knows of classes with nothing fitted (Wu et al. 2018; DINO)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

K, TEMPERATURE = 20, 0.07  # DINO's


@torch.no_grad()
def knn_accuracy(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    k: int = K,
    temperature: float = TEMPERATURE,
    batch_size: int = 1024,
) -> list[float]:
    """Share of correct classes by the votes of the k most similar training images, for each of H sets of features.

    Similarity is the cosine s, and a neighbour's vote counts exp(s / temperature); k and temperature are DINO's. A tie
    goes to the lower class. NaN for a set with features that are not finite.

    train_features, test_features: (H, N, D) and (H, M, D), as `extract_features` gives them. labels: (N,) and (M,).
    """
    if not 1 <= k <= train_features.shape[1]:
        raise ValueError(f"k must lie in 1..{train_features.shape[1]}, the number of training images, got {k}")
    device = train_features.device
    answers, truth = train_labels.to(device), test_labels.to(device)
    found = []
    for train, test in zip(train_features, test_features, strict=True):
        memory, correct = F.normalize(train.float(), dim=1), 0
        for part, labels in zip(test.float().split(batch_size), truth.split(batch_size), strict=True):
            votes = _votes(F.normalize(part, dim=1), memory, answers, num_classes, k, temperature)
            correct += int((votes.argmax(dim=1) == labels).sum())
        finite = bool(train.isfinite().all() and test.isfinite().all())
        found.append(correct / len(truth) if finite else float("nan"))
    return found


def _votes(queries: Tensor, memory: Tensor, answers: Tensor, num_classes: int, k: int, temperature: float) -> Tensor:
    """What each class gets, (B, C), up to a factor per row."""
    similarity, nearest = (queries @ memory.T).topk(k, dim=1)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the largest is 1, so nothing overflows
    return queries.new_zeros(len(queries), num_classes).scatter_add_(1, answers[nearest], weight)
