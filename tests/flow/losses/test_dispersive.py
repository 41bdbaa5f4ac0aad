"""The Dispersive Loss against loops transcribed from the paper, and where its gradient pushes."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.flow.losses import dispersive_error

FORMS = ["infonce_l2", "hinge", "covariance"]
every_form = pytest.mark.parametrize("form", FORMS)


def distance(u: list[float], v: list[float]) -> float:
    return sum((a - b) ** 2 for a, b in zip(u, v, strict=True)) / len(u)


def info_nce(z: list[list[float]], tau: float) -> float:
    terms = [math.exp(-distance(a, b) / tau) for a in z for b in z]
    return math.log(sum(terms) / len(terms))


def hinge(z: list[list[float]], margin: float) -> float:
    terms = [max(0.0, margin - distance(a, b)) ** 2 for a in z for b in z]
    return sum(terms) / len(terms)


def covariance(z: list[list[float]]) -> float:
    columns = [[value - sum(column) / len(column) for value in column] for column in zip(*z, strict=True)]
    columns = [[value / math.sqrt(sum(v * v for v in column)) for value in column] for column in columns]
    pairs = [(m, n) for m in range(len(columns)) for n in range(len(columns)) if m != n]
    return sum(sum(a * b for a, b in zip(columns[m], columns[n], strict=True)) ** 2 for m, n in pairs) / len(pairs)


@pytest.mark.parametrize("tau", [0.5, 2.0])
def test_infonce_is_the_papers_formula_loop_by_loop(tau):
    tokens = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = info_nce(tokens.flatten(1).tolist(), tau)
    assert dispersive_error(tokens, tau=tau).item() == pytest.approx(expected)


@pytest.mark.parametrize("margin", [0.5, 3.0])
def test_hinge_is_the_papers_formula_loop_by_loop(margin):
    tokens = torch.randn(6, 3, 4, dtype=torch.float64)
    expected = hinge(tokens.flatten(1).tolist(), margin)
    assert dispersive_error(tokens, form="hinge", margin=margin).item() == pytest.approx(expected)


@pytest.mark.parametrize("shape", [(6, 3, 4), (30, 1, 5)])  # fewer and more rows than features
def test_covariance_is_the_mean_square_of_correlations_loop_by_loop(shape):
    tokens = torch.randn(*shape, dtype=torch.float64)
    expected = covariance(tokens.flatten(1).tolist())
    assert dispersive_error(tokens, form="covariance").item() == pytest.approx(expected)


@every_form
def test_the_gradient_is_that_of_the_formula(form):
    tokens = torch.randn(4, 2, 3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda tokens: dispersive_error(tokens, form=form), tokens)


def collapsed() -> Tensor:
    return torch.randn(1, 2, 3, dtype=torch.float64).expand(4, 2, 3).clone()


def test_collapsed_features_have_the_largest_error_and_scattered_ones_the_smallest():
    assert dispersive_error(collapsed()).item() == pytest.approx(0, abs=1e-12)
    assert dispersive_error(1000 * torch.randn(4, 2, 3)).item() == pytest.approx(-math.log(4))
    assert dispersive_error(collapsed(), form="hinge").item() == pytest.approx(1, abs=1e-12)
    assert dispersive_error(1000 * torch.randn(4, 2, 3), form="hinge").item() == pytest.approx(1 / 4)


@every_form
def test_descent_moves_features_apart(form):
    tokens = (0.1 * torch.randn(5, 2, 3, dtype=torch.float64)).requires_grad_()
    before = dispersive_error(tokens, form=form)
    before.backward()
    assert dispersive_error(tokens - 1e-3 * tokens.grad, form=form) < before


@every_form
def test_features_that_never_change_give_finite_gradients(form):
    tokens = collapsed().requires_grad_()
    error = dispersive_error(tokens, form=form)
    error.backward()
    assert error.isfinite() and tokens.grad.isfinite().all()


@every_form
@pytest.mark.parametrize("num_rows", [0, 1])
def test_fewer_than_two_rows_give_zero_that_is_still_in_the_graph(form, num_rows):
    tokens = torch.randn(num_rows, 2, 3, requires_grad=True)
    error = dispersive_error(tokens, form=form)
    assert error.item() == 0
    error.backward()
    assert not tokens.grad.any()


@every_form
def test_autocast_and_half_precision_are_widened(form):
    tokens = torch.randn(4, 8, 16).bfloat16()
    expected = dispersive_error(tokens.float(), form=form)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(dispersive_error(tokens, form=form), expected)


def test_an_unknown_form_is_refused():
    with pytest.raises(ValueError, match="form must be one of infonce_l2, hinge, covariance, got 'cosine'"):
        dispersive_error(torch.randn(2, 1, 2), form="cosine")
