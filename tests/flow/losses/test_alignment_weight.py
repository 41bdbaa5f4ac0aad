"""VA-REPA's weights over t against their formulas, and the mean that they make."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.losses import alignment_weight, smooth_alignment_error, weighted_mean

T = torch.linspace(0.0, 1.0, 21, dtype=torch.float64)


def snr(path: object, t: float) -> float:
    level = torch.tensor(t, dtype=torch.float64)
    return float((path.alpha(level) / path.sigma(level)) ** 2)  # type: ignore[attr-defined]


@pytest.mark.parametrize("path", [Linear(), GVP(), SBDMVP()], ids=lambda path: path.name)
def test_each_form_is_its_formula(path) -> None:
    for t, hard, sigmoid, of_snr in zip(
        T.tolist(), *(alignment_weight(form, T, path, 0.6, 12.0).tolist() for form in ("hard", "sigmoid", "snr")),
        strict=True,
    ):  # fmt: skip
        assert hard == (1.0 if t < 0.6 else 0.0)
        assert sigmoid == pytest.approx(1 / (1 + math.exp(-12.0 * (0.6 - t))))
        if 0 < t < 1:
            assert of_snr == pytest.approx(snr(path, t) / (snr(path, t) + snr(path, 0.6)), rel=1e-9)
    assert torch.equal(alignment_weight("constant", T, path), torch.ones_like(T))


@pytest.mark.parametrize("form", ["sigmoid", "snr"])
def test_the_smooth_ones_are_a_half_at_tau_and_finite_at_both_ends(form) -> None:
    assert alignment_weight(form, torch.tensor([0.7]), Linear()).item() == pytest.approx(0.5, abs=1e-6)
    ends = alignment_weight(form, torch.tensor([0.0, 1.0]), Linear())
    assert ends[0] > 0.999 and ends[1] < 0.01


def test_the_mean_is_weighted_and_0_where_nothing_counts() -> None:
    error, weight = torch.tensor([1.0, 2.0, 6.0]), torch.tensor([1.0, 0.0, 0.5])
    assert weighted_mean(error, weight).item() == pytest.approx((1 + 3) / 1.5)
    error.requires_grad_()
    nothing = weighted_mean(error, torch.zeros(3))
    nothing.backward()
    assert nothing.item() == 0 and not error.grad.any()


def test_the_smooth_distance_is_half_a_square_over_beta_and_then_straight() -> None:
    tokens, teacher = torch.tensor([[[0.02, 1.0]]]), torch.zeros(1, 1, 2)
    expected = (0.02**2 / (2 * 0.05) + 1.0 - 0.05 / 2) / 2
    assert smooth_alignment_error(tokens, teacher, 0.05).item() == pytest.approx(expected)


def test_an_unknown_form_is_refused() -> None:
    with pytest.raises(ValueError, match=r"terms\.repa\.weight must be one of"):
        alignment_weight("soft", T, Linear())  # type: ignore[arg-type]
