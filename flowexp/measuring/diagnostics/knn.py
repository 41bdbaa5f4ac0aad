"""The k-nearest-neighbour probe: what a layer knows of classes with nothing fitted (Wu et al. 2018; DINO)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

K, TEMPERATURE = 20, 0.07  # DINO's


@torch.no_grad()
def knn_correct(
    train_features: Tensor,
    train_labels: Tensor,
    test_features: Tensor,
    test_labels: Tensor,
    num_classes: int,
    k: int = K,
    temperature: float = TEMPERATURE,
    batch_size: int = 1024,
) -> tuple[Tensor, Tensor]:
    """Which test images the votes of their k most similar training images classify, for each of H sets of features.

    Similarity is the cosine s of features less their mean over the training images, without which all features point
    the same way and cosines tell little apart. A neighbour's vote counts exp(s / temperature); k and temperature are
    DINO's. A tie goes to the lower class.

    train_features, test_features: (H, N, D) and (H, M, D), as `extract_features` gives them. labels: (N,) and (M,).
    Returns correct (H, M) bool, and finite (H,) bool, False for a set with features that are not finite.
    """
    if not 1 <= k <= train_features.shape[1]:
        raise ValueError(f"k must lie in 1..{train_features.shape[1]}, the number of training images, got {k}")
    device = train_features.device
    answers, truth = train_labels.to(device), test_labels.to(device)
    correct, finite = [], []
    for train, test in zip(train_features, test_features, strict=True):
        mean = train.float().mean(dim=0)
        memory = F.normalize(train.float() - mean, dim=1)
        votes = [
            _votes(F.normalize(part - mean, dim=1), memory, answers, num_classes, k, temperature)
            for part in test.float().split(batch_size)
        ]
        correct.append(torch.cat(votes).argmax(dim=1) == truth)
        finite.append(train.isfinite().all() & test.isfinite().all())
    return torch.stack(correct).cpu(), torch.stack(finite).cpu()


def _votes(queries: Tensor, memory: Tensor, answers: Tensor, num_classes: int, k: int, temperature: float) -> Tensor:
    """What each class gets, (B, C), up to a factor per row."""
    similarity, nearest = (queries @ memory.T).topk(k, dim=1)
    weight = ((similarity - similarity[:, :1]) / temperature).exp()  # the largest is 1, so nothing overflows
    return queries.new_zeros(len(queries), num_classes).scatter_add_(1, answers[nearest], weight)
