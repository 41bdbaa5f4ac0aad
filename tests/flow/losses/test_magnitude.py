"""MAFM's magnitude error: its forms, its gradient at a network's first step, and the minimiser it shifts to."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.flow.losses import magnitude_error, velocity_error

FORMS = ["rms_squared", "l1", "one_sided", "squared_norms"]
every_form = pytest.mark.parametrize("form", FORMS)


def written_out(v: list[float], target: list[float], form: str) -> float:
    r, r_target = (math.sqrt(sum(a * a for a in x) / len(x)) for x in (v, target))
    return {
        "rms_squared": (r - r_target) ** 2,
        "l1": abs(r - r_target),
        "one_sided": max(0.0, r_target - r) ** 2,
        "squared_norms": (r * r - r_target * r_target) ** 2,
    }[form]


@every_form
def test_each_form_is_its_formula(form):
    v = torch.tensor([0.5, 1.0, 2.0])[:, None, None, None] * torch.randn(3, 2, 4, 4, dtype=torch.float64)
    target = torch.randn(3, 2, 4, 4, dtype=torch.float64)
    expected = [written_out(v[i].flatten().tolist(), target[i].flatten().tolist(), form) for i in range(3)]
    assert magnitude_error(v, target, form).tolist() == pytest.approx(expected)
    if form == "rms_squared":
        assert torch.equal(magnitude_error(v, target), magnitude_error(v, target, form))


def test_the_default_is_the_difference_of_norms_on_the_scale_of_the_velocity_error():
    """velocity error + lam w magnitude error = (||v - v*||^2 + lam w (||v|| - ||v*||)^2) / d."""
    v, target = torch.randn(5, 24, dtype=torch.float64), torch.randn(5, 24, dtype=torch.float64)
    whole = (v - target).norm(dim=1) ** 2 + 0.3 * (v.norm(dim=1) - target.norm(dim=1)) ** 2
    torch.testing.assert_close(velocity_error(v, target) + 0.3 * magnitude_error(v, target), whole / 24)


@every_form
def test_only_the_length_counts(form):
    v, target = torch.randn(4, 6, dtype=torch.float64), torch.randn(4, 6, dtype=torch.float64)
    turned = v @ torch.linalg.qr(torch.randn(6, 6, dtype=torch.float64)).Q
    torch.testing.assert_close(magnitude_error(turned, target, form), magnitude_error(v, target, form))
    assert magnitude_error(target, target, form).abs().max() == 0


def test_one_sided_forgives_a_velocity_that_is_too_long():
    target = torch.randn(3, 6)
    assert not magnitude_error(2 * target, target, "one_sided").any()
    assert torch.equal(magnitude_error(target / 2, target, "one_sided"), magnitude_error(target / 2, target))


@every_form
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_gradient_is_finite_where_every_network_starts(form, dtype):
    """At initialisation the velocity is exactly zero, and the length has no derivative there."""
    v = torch.zeros(2, 3, 4, 4, dtype=dtype, requires_grad=True)
    magnitude_error(v, torch.randn(2, 3, 4, 4), form).sum().backward()
    assert torch.equal(v.grad, torch.zeros_like(v))


@pytest.mark.parametrize("form", ["rms_squared", "l1", "one_sided"])
@pytest.mark.parametrize("size", [1e-30, 1e-18, 1e-6])
def test_the_gradient_stays_bounded_close_to_zero(form, size):
    v = (size * torch.randn(2, 48)).requires_grad_()
    magnitude_error(v, torch.ones(2, 48), form).sum().backward()
    assert v.grad.norm(dim=1).max() <= 2.001 / 48**0.5  # |d (r - r*)^2 / dv| = 2 |r - r*| / sqrt(d), and r* = 1


@every_form
def test_the_gradient_is_that_of_the_formula(form):
    v = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    target = 2 * torch.randn(3, 5, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda v: magnitude_error(v, target, form), v)


@every_form
def test_the_target_gets_no_gradient(form):
    v, target = torch.randn(2, 6, requires_grad=True), torch.randn(2, 6, requires_grad=True)
    magnitude_error(v, target, form).sum().backward()
    assert v.grad is not None
    assert target.grad is None


def minimiser(targets: Tensor, strength: float) -> Tensor:
    """What one velocity for all targets comes to under MSE + strength * magnitude, by Newton-like descent."""
    v = targets.mean(dim=0).requires_grad_()
    optimizer = torch.optim.LBFGS([v], max_iter=200, tolerance_grad=1e-12, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        each = v.expand_as(targets)
        loss = (velocity_error(each, targets) + strength * magnitude_error(each, targets)).mean()
        loss.backward()
        return loss

    optimizer.step(closure)
    return v.detach()


@pytest.mark.parametrize("strength", [0.0, 0.1, 0.3, 1.0, 5.6])
def test_the_minimiser_keeps_the_direction_of_the_mean_and_lengthens_it(strength):
    """Length (||m|| + lam w n) / (1 + lam w) along m = E[v*], with n = E||v*||: no longer the mean velocity."""
    targets = torch.randn(200, 12, dtype=torch.float64) + torch.linspace(0.2, 1.5, 12, dtype=torch.float64)
    m, n = targets.mean(dim=0), targets.norm(dim=1).mean()
    length = (m.norm() + strength * n) / (1 + strength)
    torch.testing.assert_close(minimiser(targets, strength), m / m.norm() * length, rtol=1e-6, atol=1e-7)


def test_at_the_noise_end_the_lengthening_is_the_table_of_calibrations():
    """Data of RMS c: given pure noise, v* = noise - data has the mean noise, and is sqrt(1 + c^2) times as long."""
    noise = torch.randn(256, dtype=torch.float64)
    for c, lam in ((1.0, 0.32), (0.8, 0.55), (0.5, 5.6)):  # each gives SSC's default s0 = 1.1
        targets = noise - c * torch.randn(2000, 256, dtype=torch.float64)
        scale = minimiser(targets, lam).norm() / noise.norm()
        assert scale.item() == pytest.approx((1 + lam * math.sqrt(1 + c**2)) / (1 + lam), abs=0.005)
        assert scale.item() == pytest.approx(1.1, abs=0.01)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form must be one of rms_squared, l1, one_sided, squared_norms, got 'l2'"):
        magnitude_error(torch.randn(1, 2), torch.randn(1, 2), "l2")
