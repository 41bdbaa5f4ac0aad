from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch_fidelity.metric_isc import isc_features_to_metric
from torchmetrics.image.inception import InceptionScore as TorchmetricsInceptionScore

from flowexp.measuring.metrics import InceptionScore
from flowexp.measuring.metrics.inception_score import Score


def scores_by_loops(logits: torch.Tensor, split_size: int) -> list[float]:
    """ADM's evaluator in NumPy: splits in order, the last one as long as it comes."""
    p = logits.double().softmax(1).numpy()
    scores = []
    for start in range(0, len(p), split_size):
        part = p[start : start + split_size]
        kl = [sum(q * (math.log(q) - math.log(m)) for q, m in zip(row, part.mean(0), strict=True)) for row in part]
        scores.append(math.exp(float(np.mean(kl))))
    return scores


def inception_score(logits: torch.Tensor, split_size: int = 5000) -> Score:
    """Of logits (N, C) in one update."""
    metric = InceptionScore(len(logits), split_size, logits.shape[1])
    metric.update(logits, torch.arange(len(logits)))
    return metric.compute()


def test_score_is_that_of_adms_loops_with_a_last_split_that_is_smaller():
    logits = torch.randn(25, 7) * 3
    expected = scores_by_loops(logits, 10)
    found = inception_score(logits, split_size=10)
    assert len(expected) == 3
    assert found.mean == pytest.approx(np.mean(expected)) and found.std == pytest.approx(np.std(expected))


def test_score_is_that_of_torch_fidelity_without_its_shuffle():
    logits = torch.randn(200, 1008) * 2
    theirs = isc_features_to_metric(logits, splits=4, shuffle=False)
    found = inception_score(logits, split_size=50)
    assert found.mean == pytest.approx(theirs["inception_score_mean"], rel=1e-6)
    assert found.std == pytest.approx(theirs["inception_score_std"], rel=1e-6)


def test_score_of_one_split_is_that_of_torchmetrics():
    class Identity(torch.nn.Module):
        def forward(self, features):
            return features

    logits = torch.randn(100, 1008) * 2
    theirs = TorchmetricsInceptionScore(Identity(), splits=1)
    theirs.update(logits)
    with pytest.warns(UserWarning, match="degrees of freedom"):
        expected = float(theirs.compute()[0])
    assert inception_score(logits).mean == pytest.approx(expected, rel=1e-5)


def test_sure_and_balanced_predictions_score_the_number_of_classes():
    assert inception_score(torch.eye(8).repeat(3, 1) * 1000).mean == pytest.approx(8)
    assert inception_score(torch.randn(1, 8).repeat(5, 1)).mean == pytest.approx(1)


def test_order_of_arrival_and_batches_do_not_matter():
    logits, order = torch.randn(30, 5), torch.randperm(30)
    metric = InceptionScore(30, split_size=7, num_classes=5)
    for rows in order.split(4):
        metric.update(logits[rows], rows)
    assert metric.compute() == pytest.approx(inception_score(logits, 7))


def test_logits_that_are_not_finite_are_not_measured():
    with pytest.raises(ValueError, match="samples have diverged"):
        inception_score(torch.tensor([[1.0, math.nan], [0.0, 1.0]]))


def test_a_split_without_images_is_an_error():
    metric = InceptionScore(4, split_size=2, num_classes=3)
    metric.update(torch.randn(2, 3), torch.tensor([0, 1]))
    with pytest.raises(ValueError, match=r"\[2, 0\] images"):
        metric.compute()


def test_logits_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 1008\), got \(2, 1000\)"):
        InceptionScore(2).update(torch.zeros(2, 1000), torch.arange(2))
