"""Contrastive flow matching against loops, and what it drives the velocity to."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from flowexp.objectives.terms import ContrastiveFlow
from flowexp.training.step_draws import StepKey


def with_output(step, output):
    return replace(step, output=output)


def test_it_is_the_published_objective_loop_by_loop(make_step):
    """||v - v*||^2 - lam ||v - v~||^2, with v~ the target of another row; which one, the step's draw decides."""
    term, step = ContrastiveFlow(lam=0.05), make_step(num=5)
    v, target = torch.randn_like(step.target), step.target
    step = with_output(step, v)
    shift = int(torch.randint(1, 5, (), generator=StepKey(seed=3, step=7).for_term(2)))
    total = 0.0
    for i in range(5):
        other = target[(i - shift) % 5].flatten().tolist()
        ours, own = v[i].flatten().tolist(), target[i].flatten().tolist()
        positive = sum((a - b) ** 2 for a, b in zip(ours, own, strict=True)) / len(ours)
        negative = sum((a - b) ** 2 for a, b in zip(ours, other, strict=True)) / len(ours)
        total += (positive - 0.05 * negative) / 5
    flow_matching = (v - target).square().mean()
    assert (flow_matching + term.lam * term(step)).item() == pytest.approx(total, rel=1e-5)


def test_no_row_is_its_own_contrast(make_step):
    for number in range(20):
        step = make_step(num=4, key=StepKey(seed=0, step=number))
        assert ContrastiveFlow()(with_output(step, step.target)).item() < -1e-3


def test_its_minimum_is_the_one_that_the_docstring_names():
    """Of one number that all rows share: m is the mean of the targets, and so is m~."""
    targets, lam = torch.tensor([0.0, 1.0, 5.0]), 0.25
    v = torch.linspace(-2, 6, 801)
    positive = (v[:, None] - targets).square().mean(1)
    contrasts = torch.stack([(v[:, None] - targets.roll(s)).square().mean(1) for s in (1, 2)]).mean(0)
    best = v[(positive - lam * contrasts).argmin()].item()
    assert best == pytest.approx((2 - lam * 2) / (1 - lam), abs=0.01)


def test_gradients_reach_the_velocity_and_not_the_contrast(make_step):
    step = make_step(num=3)
    output, target = torch.randn_like(step.target).requires_grad_(), step.target.clone().requires_grad_()
    ContrastiveFlow()(replace(step, output=output, target=target)).backward()
    assert output.grad.abs().min() > 0 and target.grad is None


def test_a_single_row_has_no_contrast(make_step):
    step = make_step(num=1)
    output = torch.randn_like(step.target).requires_grad_()
    loss = ContrastiveFlow()(with_output(step, output))
    loss.backward()
    assert loss.item() == 0 and not output.grad.any()


def test_rows_of_a_share_count_by_it(make_step):
    step = with_output(make_step(num=3), torch.randn(3, 1, 8, 8))
    assert ContrastiveFlow()(replace(step, share=0.5)).item() == pytest.approx(0.5 * ContrastiveFlow()(step).item())


@pytest.mark.parametrize("lam", [1.0, 2.0, -0.1])
def test_a_weight_without_a_minimum_is_refused(lam):
    with pytest.raises(ValueError, match=r"terms\.contrastive_flow\.lam"):
        ContrastiveFlow(lam=lam)
