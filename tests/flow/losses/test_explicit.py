"""The explicit flow matching field against loops, flow matching near clean data, and a field known in closed form."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.losses import ExactField, explicit, explicit_velocity

INTERPOLANTS = {path.name: path for path in (GVP, Linear, SBDMVP)}
every_interpolant = pytest.mark.parametrize("name", sorted(INTERPOLANTS))


def by_loops(x: Tensor, t: Tensor, candidates: Tensor, interpolant) -> Tensor:
    """E[alpha' c + sigma' noise | x], the noise being what is left of x."""
    alpha, sigma = interpolant.alpha(t), interpolant.sigma(t)
    weights, velocities = [], []
    for c in candidates:
        noise = (x - alpha * c) / sigma
        weights.append(math.exp(-float(noise.square().sum()) / 2))
        velocities.append(interpolant.alpha_dot(t) * c + interpolant.sigma_dot(t) * noise)
    return sum(w * v for w, v in zip(weights, velocities, strict=True)) / sum(weights)


@every_interpolant
@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_it_is_the_mean_conditional_velocity_loop_by_loop(name, chunk):
    interpolant = INTERPOLANTS[name]()
    xt, candidates = torch.randn(4, 2, 1, 2, dtype=torch.float64), torch.randn(7, 2, 1, 2, dtype=torch.float64)
    t = torch.tensor([0.2, 0.5, 0.8, 1.0], dtype=torch.float64)
    field = explicit_velocity(xt, t, candidates, interpolant, chunk=chunk)
    expected = torch.stack([by_loops(x, s, candidates, interpolant) for x, s in zip(xt, t, strict=True)])
    torch.testing.assert_close(field, expected)


def test_for_linear_it_is_the_printed_formula():
    """(x - sum w c) / t with w = softmax(-||x - (1 - t) c||^2 / (2 t^2)); reference: ExFM in LCF's time."""
    x, candidates, t = torch.randn(1, 5), torch.randn(9, 5), 0.4
    w = torch.softmax(-(x - 0.6 * candidates).square().sum(dim=1) / (2 * 0.4**2), dim=0)
    expected = (x - (w[:, None] * candidates).sum(dim=0)) / 0.4
    torch.testing.assert_close(explicit_velocity(x, torch.tensor([t]), candidates, Linear()), expected)


@every_interpolant
def test_near_clean_data_it_is_flow_matchings_own_target(name):
    """With the own sample among the candidates the softmax has a single entry: why ExFM changes nothing there."""
    interpolant = INTERPOLANTS[name]()
    data, noise, t = torch.randn(8, 3, 8, 8), torch.randn(8, 3, 8, 8), torch.full((8,), 0.05)
    field = explicit_velocity(interpolant.interpolate(data, noise, t), t, data, interpolant)
    torch.testing.assert_close(field, interpolant.velocity(data, noise, t), rtol=1e-4, atol=1e-4)


def mixture_velocity(x: Tensor, t: float, means: Tensor, spread: float) -> Tensor:
    """The field of data that are `means` plus Gaussian noise of size `spread`, under the linear path: exact."""
    variance = ((1 - t) * spread) ** 2 + t**2
    posterior = torch.softmax(-(x - (1 - t) * means).square().sum(dim=1) / (2 * variance), dim=0)
    data = means + (1 - t) * spread**2 / variance * (x - (1 - t) * means)
    return (x - (posterior[:, None] * data).sum(dim=0)) / t


@pytest.mark.parametrize("t", [0.3, 0.6, 0.95])
def test_many_samples_of_a_gaussian_mixture_have_its_closed_form_field(t):
    means, spread = torch.tensor([[-1.0, 0.5], [1.0, 0.0], [0.0, -1.0]], dtype=torch.float64), 0.3
    candidates = means[torch.randint(3, (40_000,))] + spread * torch.randn(40_000, 2, dtype=torch.float64)
    xt = (1 - t) * candidates[:20] + t * torch.randn(20, 2, dtype=torch.float64)
    field = explicit_velocity(xt, torch.full((20,), t), candidates, Linear())
    exact = torch.stack([mixture_velocity(x, t, means, spread) for x in xt])
    assert (field - exact).norm() < 0.03 * exact.norm()


def test_pure_noise_says_nothing_about_the_data():
    data, noise = torch.randn(6, 4), torch.randn(3, 4)
    field = explicit_velocity(noise, torch.ones(3), data, Linear())
    torch.testing.assert_close(field, noise - data.mean(dim=0))


@every_interpolant
def test_times_below_t_min_are_taken_for_it(name):
    xt, candidates, interpolant = torch.randn(3, 6), torch.randn(5, 6), INTERPOLANTS[name]()
    field = explicit_velocity(xt, torch.tensor([0.0, 1e-9, 1e-3]), candidates, interpolant, t_min=1e-3)
    assert field.isfinite().all()
    assert torch.equal(field, explicit_velocity(xt, torch.full((3,), 1e-3), candidates, interpolant))


def test_images_stored_in_half_are_candidates_too_and_the_field_is_float32():
    xt, candidates, t = torch.randn(3, 6).bfloat16(), torch.randn(5, 6).half(), torch.full((3,), 0.4)
    with torch.autocast("cpu", torch.bfloat16):
        field = explicit_velocity(xt, t, candidates, Linear())
    assert field.dtype == torch.float32
    wide = explicit_velocity(xt.float(), t, candidates.float(), Linear())
    assert torch.equal(field, wide)


@pytest.mark.parametrize("shape", [(0, 6), (5, 7)])
def test_candidates_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match=r"candidates must be images of shape \(6,\)"):
        explicit_velocity(torch.randn(3, 6), torch.ones(3), torch.randn(*shape), Linear())


@every_interpolant
def test_a_mixtures_field_is_that_of_very_many_images_of_it(name):
    """Of images drawn from the mixture itself, by their own closed form without a spread."""
    interpolant, means, spread = INTERPOLANTS[name](), torch.randn(3, 2, dtype=torch.float64), 0.5
    drawn = means.repeat(40_000, 1) + spread * torch.randn(120_000, 2, dtype=torch.float64)
    x, t = torch.randn(5, 2, dtype=torch.float64), torch.full((5,), 0.6, dtype=torch.float64)
    expected = explicit_velocity(x, t, drawn, interpolant)
    torch.testing.assert_close(ExactField(means, interpolant, spread=spread)(x, t), expected, rtol=0.02, atol=0.02)


def test_an_exact_field_given_a_class_is_that_of_its_images():
    images, labels, x = torch.randn(10, 4), torch.arange(10) % 2, torch.randn(3, 4)
    t, label = torch.full((3,), 0.5), torch.tensor([0, 1, 1])
    field = ExactField(images, Linear(), labels)
    for row in range(3):
        alone = explicit_velocity(x[row : row + 1], t[:1], images[labels == label[row]], Linear())
        torch.testing.assert_close(field(x, t, label)[row : row + 1], alone)
    torch.testing.assert_close(field(x, t), explicit_velocity(x, t, images, Linear()))


def test_no_weight_is_subnormal_which_would_be_multiplied_ten_times_as_slowly():
    tiny = torch.finfo(torch.float32).tiny
    logits = torch.cat([torch.linspace(-110, 0, 2001), torch.tensor([-torch.inf, torch.nan])])
    weights = explicit._exp(logits)
    assert ((logits.exp() > 0) & (logits.exp() < tiny)).any()  # exp alone gives subnormal numbers
    assert not ((weights > 0) & (weights < tiny)).any()
    torch.testing.assert_close(weights[logits > -87.3], logits[logits > -87.3].exp())
    assert weights[-1].isnan()  # a field that is not finite is not hidden
