"""The Inception Score (Salimans et al., 2016, section 4), over splits of fixed size as ADM's evaluator takes it."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torchmetrics import Metric

from flowexp.measuring.metrics.moments import refuse_infinite


class Score(NamedTuple):
    """A mean over splits or subsets, and their standard deviation (divisor: their number)."""

    mean: float
    std: float


class InceptionScore(Metric):
    """exp of the mean over images of KL(p(class | image) || p(class)), averaged over splits of the samples.

    Image i belongs to split i // split_size, without shuffling; the last split is smaller where the number does not
    divide, and counts as much as the others, as in ADM. torch-fidelity and torchmetrics shuffle and take ten splits.
    Sums of p and of p log p are all that a split needs, so no logits are stored and processes only add.

    Arguments:
        num_samples: N; indices lie in [0, N).
        split_size: images in a split; 5000 is ADM's. Scores grow with it.
        num_classes: C, the length of the logits.
    """

    is_differentiable = False
    full_state_update = False

    probability: Tensor
    negentropy: Tensor
    count: Tensor

    def __init__(self, num_samples: int, split_size: int = 5000, num_classes: int = 1008) -> None:
        super().__init__()
        if num_samples < 1 or split_size < 1:
            raise ValueError(f"num_samples and split_size must be at least 1, got {num_samples} and {split_size}")
        self.split_size = split_size
        num_splits = -(-num_samples // split_size)
        self.add_state("probability", torch.zeros(num_splits, num_classes, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("negentropy", torch.zeros(num_splits, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(num_splits, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, indices: Tensor) -> None:
        """Adds logits (B, C) of the samples numbered `indices` (B,)."""
        if logits.ndim != 2 or logits.shape[1] != self.probability.shape[1]:
            raise ValueError(f"logits must have shape (B, {self.probability.shape[1]}), got {tuple(logits.shape)}")
        log_p = logits.double().log_softmax(dim=1)
        p, split = log_p.exp(), indices.to(logits.device) // self.split_size
        self.probability.index_add_(0, split, p)
        self.negentropy.index_add_(0, split, torch.special.entr(p).sum(1).neg())
        self.count.index_add_(0, split, torch.ones_like(split, dtype=torch.float64))

    def compute(self) -> Score:
        """Mean and standard deviation over splits, on every process; std is 0 for a single split.

        Raises:
            ValueError: a split without images, or logits that are not finite.
        """
        if (self.count == 0).any():
            raise ValueError(f"the Inception Score's splits hold {self.count.int().tolist()} images: none may be empty")
        refuse_infinite(self.negentropy, int(self.count.sum()))
        mean = self.probability / self.count[:, None]
        kl = self.negentropy / self.count + torch.special.entr(mean).sum(1)
        scores = kl.exp()
        return Score(float(scores.mean()), float(scores.std(correction=0)))
