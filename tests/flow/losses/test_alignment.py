"""REPA's projection loss against loops."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.flow.losses import alignment_error


def minus_cosine(u: list[float], v: list[float]) -> float:
    product = sum(a * b for a, b in zip(u, v, strict=True))
    return -product / math.sqrt(sum(a * a for a in u) * sum(b * b for b in v))


def test_it_is_minus_the_mean_cosine_of_the_tokens_loop_by_loop():
    tokens, teacher = torch.randn(2, 3, 5, 4, dtype=torch.float64)
    expected = [
        sum(minus_cosine(u, v) for u, v in zip(a, b, strict=True)) / 5
        for a, b in zip(tokens.tolist(), teacher.tolist(), strict=True)
    ]
    assert alignment_error(tokens, teacher).tolist() == pytest.approx(expected)


def test_only_directions_count():
    tokens, scale = torch.randn(3, 5, 4, dtype=torch.float64), torch.rand(3, 5, 1) + 0.5
    torch.testing.assert_close(alignment_error(tokens, scale * tokens), -torch.ones(3, dtype=torch.float64))
    torch.testing.assert_close(alignment_error(tokens, -scale * tokens), torch.ones(3, dtype=torch.float64))


def test_the_teacher_gets_no_gradient_and_a_zero_token_a_finite_one():
    tokens, teacher = torch.zeros(2, 3, 4, requires_grad=True), torch.randn(2, 3, 4, requires_grad=True)
    alignment_error(tokens, teacher).sum().backward()
    assert tokens.grad.isfinite().all()
    assert teacher.grad is None


def test_half_precision_is_widened_also_in_autocast():
    tokens, teacher = torch.randn(2, 2, 16, 32).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        error = alignment_error(tokens, teacher)
    assert torch.equal(error, alignment_error(tokens.float(), teacher.float()))


def test_shapes_that_would_broadcast_are_refused():
    with pytest.raises(ValueError, match="one shape"):
        alignment_error(torch.randn(2, 3, 4), torch.randn(2, 1, 4))
