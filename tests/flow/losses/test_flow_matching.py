"""The velocity error: a mean over elements, per sample, in float32."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.losses import velocity_error


def test_it_is_algorithm_1_line_6_divided_by_the_number_of_elements():
    v, target = torch.randn(3, 2, 4, 4, dtype=torch.float64), torch.randn(3, 2, 4, 4, dtype=torch.float64)
    for i in range(3):
        squares = [(a - b) ** 2 for a, b in zip(v[i].flatten().tolist(), target[i].flatten().tolist(), strict=True)]
        assert velocity_error(v, target)[i].item() == pytest.approx(sum(squares) / 32)


def test_the_minimiser_over_targets_is_their_mean_and_the_floor_their_variance():
    targets = torch.randn(500, 3, dtype=torch.float64)
    v = targets.mean(dim=0, keepdim=True).requires_grad_()
    loss = velocity_error(v.expand(500, 3), targets).mean()
    assert loss.item() == pytest.approx(targets.var(dim=0, unbiased=False).mean().item())
    assert torch.autograd.grad(loss, v)[0].abs().max() < 1e-12


def test_half_precision_is_widened_before_the_subtraction():
    v, target = torch.tensor([[1.0]]).bfloat16(), torch.tensor([[1.001]])
    error = velocity_error(v, target)
    assert error.dtype == torch.float32
    assert error.item() == pytest.approx(1e-6, rel=1e-3)
    both = velocity_error(torch.tensor([[256.0]]).bfloat16(), torch.tensor([[1.0078125]]).bfloat16())
    assert both.item() == pytest.approx(254.9921875**2, rel=1e-6)  # bf16 holds both, not their difference


def test_no_sample_gives_no_error_that_is_still_in_the_graph():
    v = torch.empty(0, 1, 2, 2, requires_grad=True)
    error = velocity_error(v, torch.empty(0, 1, 2, 2))
    assert error.shape == (0,)
    error.sum().backward()
    assert v.grad.shape == v.shape
