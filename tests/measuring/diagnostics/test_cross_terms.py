from __future__ import annotations

import math

import pytest
import torch

from flowexp.measuring.diagnostics import cross_terms
from flowexp.measuring.diagnostics.noised import noised_batches


def test_statistics_are_those_of_a_loop_over_pairs():
    images = torch.randn(300, 3, 4, 4)
    relative, cosine = [], []
    for batch in noised_batches(images, 1.0, 0, 256):
        for data, noise in zip(batch.data.flatten(1), batch.noise.flatten(1), strict=True):
            inner = abs(float(data @ noise))
            relative.append(2 * inner / (float(data @ data) + float(noise @ noise)))
            cosine.append(inner / float(data.norm() * noise.norm()))
    found = cross_terms(images, seed=0, batch_size=50)
    for spread, values in ((found.relative, relative), (found.cosine, cosine)):
        assert spread.mean == pytest.approx(sum(values) / 300, rel=1e-4)
        assert spread.maximum == pytest.approx(max(values), rel=1e-4)
        assert spread.percentile_99 == pytest.approx(sorted(values)[296], rel=1e-4)  # 297 of 300 do not exceed it
    assert (found.num_pairs, found.dim) == (300, 48)


def test_the_mean_cosine_has_its_closed_form():
    found = cross_terms(torch.randn(5000, 1, 5, 5), seed=0)
    exact = math.gamma(12.5) / (math.sqrt(math.pi) * math.gamma(13))
    assert found.expected_cosine == pytest.approx(exact, rel=1e-12)
    assert found.cosine.mean == pytest.approx(exact, rel=0.05)


def test_the_relative_term_is_what_equation_4_leaves_out():
    """|noise - data|^2 differs from |noise|^2 + |data|^2 by that share of it."""
    images = torch.randn(1, 1, 6, 6)
    batch = next(noised_batches(images, 1.0, 3, 1))
    parts = batch.noise.square().sum() + batch.data.square().sum()
    left_out = abs((batch.noise - batch.data).square().sum() - parts) / parts
    assert cross_terms(images, seed=3).relative.maximum == pytest.approx(float(left_out), rel=1e-4)
    assert [row["magnitude"] for row in cross_terms(images, seed=3).rows()] == ["relative", "cosine"]
