from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.sampler import Sampler
from flowexp.measuring.diagnostics import create_projection, integration_lag
from flowexp.measuring.diagnostics.integration_lag import effective_level, marginal_moments, state_moments
from flowexp.measuring.metrics import Moments, distance_of

DIM = 16
VARIANCE = torch.logspace(-2, 0.5, DIM)
EXACT = Moments(torch.zeros(DIM, dtype=torch.float64), VARIANCE.double().diag(), 10**6)
PATHS = [Linear(), GVP(), SBDMVP()]


def images(num):
    return (torch.randn(num, DIM) * VARIANCE.sqrt()).reshape(num, 1, 4, 4)


def spread(path, t):
    """Standard deviations of the exact marginal at t."""
    level = torch.tensor(t, dtype=torch.float64)
    return (path.alpha(level) ** 2 * VARIANCE.double() + path.sigma(level) ** 2).sqrt()


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_fld_of_the_exact_marginals_of_gaussian_data_has_its_closed_form(path):
    for t in (0.0, 0.3, 1.0):
        expected = (spread(path, t) - VARIANCE.double().sqrt()).square().sum()
        assert distance_of(marginal_moments(path, EXACT, t), EXACT) == pytest.approx(float(expected), abs=1e-9)


def test_marginal_moments_are_those_of_noised_data_also_after_a_projection():
    data, projection = images(60_000) + 0.5, create_projection(DIM, max_dim=5, seed=0)
    clean = projection(data).double()
    found = marginal_moments(Linear(), Moments(clean.mean(0), clean.T.cov(), 60_000), 0.4, projection.noise_variance)
    noised = projection(0.6 * data + 0.4 * torch.randn_like(data)).double()
    torch.testing.assert_close(found.mean, noised.mean(0), rtol=0, atol=0.03)
    torch.testing.assert_close(found.covariance, noised.T.cov(), rtol=0, atol=0.06)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize("shift", [-0.07, 0.0, 0.1])
def test_a_state_that_is_the_marginal_of_another_level_is_told_to_be_there(path, shift):
    state = marginal_moments(path, EXACT, 0.5 + shift)
    level, misfit = effective_level(state, EXACT, path, 0.5)
    assert level == pytest.approx(0.5 + shift, abs=1e-3)
    assert misfit < 0.01 * distance_of(state, EXACT)


def test_states_of_an_euler_sampler_have_the_variance_of_its_recursion(gaussian_field):
    field, sampler = gaussian_field(Linear(), VARIANCE.reshape(1, 4, 4)), Sampler("euler", num_steps=8)
    found = state_moments(sampler, field, Linear(), range(4000), (1, 4, 4), 0, create_projection(DIM), batch_size=1500)
    levels, factor = [1.0, *sorted(found, reverse=True)], torch.ones(DIM)
    assert len(levels) == 9
    for t, after in pairwise(levels):
        factor = factor * (1 + (after - t) * field.slope(torch.tensor(t)).flatten().detach())
        assert found[after].count == 4000
        torch.testing.assert_close(found[after].covariance.diagonal().float(), factor**2, rtol=0.15, atol=1e-3)


def test_the_last_state_is_the_sample_also_after_a_final_jump(gaussian_field):
    field = gaussian_field(Linear(), VARIANCE.reshape(1, 4, 4))
    for sampler in (Sampler("euler", num_steps=5), Sampler("euler", num_steps=5, final_jump=0.2)):
        found = state_moments(sampler, field, Linear(), range(50), (1, 4, 4), 0, create_projection(DIM))
        samples = sampler.sample(field, Linear(), range(50), (1, 4, 4), 0).images.flatten(1)
        assert len(found) == 5
        torch.testing.assert_close(found[0.0].mean, samples.double().mean(0))


@pytest.mark.parametrize(("scale", "side"), [(1.0, 0), (0.9, 1), (1.1, -1)])
def test_an_exact_field_keeps_its_schedule_a_slow_one_is_behind_and_a_fast_one_ahead(gaussian_field, scale, side):
    field = gaussian_field(Linear(), VARIANCE.reshape(1, 4, 4), scale)
    curve = integration_lag(Sampler("heun", num_steps=40), field, Linear(), images(24_000), 10_000, 0, num_levels=5)
    assert len(curve) == 5 and curve.data_end.t == 0
    for point in curve.points[1:-1]:
        assert abs(point.lag) < 0.01 if side == 0 else side * point.lag > 0.015
        assert point.lag == point.t_effective - point.t
        assert abs(point.lag_marginal) < 0.01
        expected = float((spread(Linear(), point.t) - VARIANCE.sqrt()).square().sum())
        assert point.fld_marginal == pytest.approx(expected, rel=0.1)
        assert abs(point.excess) < 0.06 if side == 0 else side * point.excess > 0.02
        assert point.excess == pytest.approx(point.fld / point.fld_marginal - 1)


def test_a_lag_takes_few_levels_a_projection_and_labels(gaussian_field):
    field, seen = gaussian_field(Linear(), 1.0), []

    class Labelled:
        def __call__(self, x, t, label=None):
            seen.append(label)
            return field(x, t)

        def null_condition(self, label):
            return None

    curve = integration_lag(
        Sampler("euler_maruyama", num_steps=10), Labelled(), Linear(), images(90), 30, 0,
        labels=torch.arange(30), num_levels=3, max_dim=4, batch_size=20,
    )  # fmt: skip
    assert len(curve) == 3
    assert torch.equal(torch.cat([seen[0], seen[10]]), torch.arange(30)) and len(seen) == 20


def test_states_marginals_and_data_share_no_image(gaussian_field):
    with pytest.raises(ValueError, match="at least 2 as the data, got 31"):
        integration_lag(Sampler(), gaussian_field(Linear(), 1.0), Linear(), images(31), 30, 0)


def test_a_lag_is_measured_at_the_levels_nearest_to_those_given(gaussian_field):
    field, sampler = gaussian_field(Linear(), VARIANCE.reshape(1, 4, 4)), Sampler("euler", num_steps=8)

    def levels(at):
        return integration_lag(sampler, field, Linear(), images(400), 100, 0, num_resamples=0, at=at).levels

    assert levels([0.9, 0.6, 0.0]) == pytest.approx([0.0, 0.625, 0.875])
    assert levels([0.51, 0.49]) == pytest.approx([0.5])
    with pytest.raises(ValueError, match="needs a noise level"):
        levels([])
