"""Predictions of data or noise have their velocity clamped at one end: they are measured by what they can reach."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.measuring.diagnostics import gradient_share, loss_by_noise_level, measure_condition, velocity_norms
from flowexp.measuring.diagnostics.target import target_velocity

C, CLAMP = 0.5, 0.05
PATHS = [Linear(), GVP(), SBDMVP()]
CLAMPED = [("data", 0.01), ("noise", 0.99)]  # the end at which each prediction is clamped; a fifth is left of v* there


class Predicting(torch.nn.Module):
    """A velocity field that returns the data or the noise it stands for."""

    def __init__(self, field, path, kind):
        super().__init__()
        self.field, self.path, self.kind = field, path, kind

    def forward(self, x, t, label=None):
        return self.path.convert(self.field(x, t), x, t, "velocity", self.kind)

    def null_condition(self, label):
        return None


@pytest.fixture
def clamped(gaussian_field):
    """An exact field of Gaussian data, and a network that predicts data or noise as exactly."""

    def make(kind, path, scale=1.0):
        field = gaussian_field(path, C**2, scale)
        return field, VelocityNetwork(Predicting(field, path, kind), path, Parameterization(kind, clamp=CLAMP))

    return make


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
@pytest.mark.parametrize(("kind", "level"), CLAMPED)
def test_the_target_is_the_velocity_where_the_network_can_reach_it_and_a_perfect_output_elsewhere(
    clamped, path, kind, level
):
    field, network = clamped(kind, path)
    data, noise = torch.randn(2, 5, 1, 2, 2, dtype=torch.float64)
    for t in (torch.full((5,), value, dtype=torch.float64) for value in (0.5, level)):
        velocity = path.velocity(data, noise, t)
        assert torch.equal(target_velocity(field, path, data, noise, t), velocity)
        output = {"data": data, "noise": noise}[kind]
        reached = network.parameterization.velocity(output, path.interpolate(data, noise, t), t, path)
        torch.testing.assert_close(target_velocity(network, path, data, noise, t), reached)
        assert torch.allclose(reached, velocity) == (float(t[0]) == 0.5)


@pytest.mark.parametrize(("kind", "level"), CLAMPED)
def test_a_clamped_network_that_is_exact_has_the_deficit_and_scale_of_the_exact_velocity(clamped, kind, level):
    images = C * torch.randn(500, 1, 4, 4)
    field, network = clamped(kind, Linear())
    exact, found = (velocity_norms(v, Linear(), images, [level], seed=0).data_end for v in (field, network))
    for name in ("ratio", "deficit", "energy_ratio", "cosine", "best_scale"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name), rel=1e-3, abs=1e-4), name
    for name in ("velocity", "target"):
        assert getattr(found, name) == pytest.approx(getattr(exact, name) / 5, rel=1e-3), name
    parts = found.noise**2 + found.data**2
    assert parts == pytest.approx(found.target**2, rel=0.05)


@pytest.mark.parametrize(("kind", "level"), CLAMPED)
def test_its_loss_is_the_variance_of_what_it_can_reach(clamped, kind, level):
    """c^2 / (alpha^2 c^2 + sigma^2) is the least error of a velocity, and what is left of v* is squared."""
    _, network = clamped(kind, Linear())
    found = loss_by_noise_level(network, Linear(), C * torch.randn(3000, 1, 4, 4), [level], seed=0)[level]
    least = C**2 / ((1.0 - level) ** 2 * C**2 + level**2)
    assert found.loss == pytest.approx(least / 25, rel=0.03)


@pytest.mark.parametrize(("kind", "level"), CLAMPED)
def test_its_condition_number_is_held_against_the_clamped_demand(clamped, kind, level):
    field, network = clamped(kind, Linear())
    images = C * torch.randn(30, 1, 4, 4)
    exact, found = (measure_condition(v, Linear(), images, [level], seed=0).data_end for v in (field, network))
    for pair in ("noise", "data"):
        demand = getattr(found, f"{pair}_exact")
        assert getattr(found, f"{pair}_target") == pytest.approx(demand, rel=1e-3)
        assert demand < getattr(exact, f"{pair}_exact")
    clamped_pair, other_pair = ("noise", "data") if kind == "data" else ("data", "noise")
    assert getattr(found, f"{clamped_pair}_exact") == pytest.approx(1 / CLAMP)  # sigma' / sigma, or |alpha'| / alpha
    assert getattr(found, f"{other_pair}_exact") == pytest.approx(0.01 / 0.99 / CLAMP)


@pytest.mark.parametrize(("kind", "level"), CLAMPED)
def test_its_gradient_is_that_of_the_velocity_error_it_can_lower(clamped, kind, level):
    """A fifth of the field beside a fifth of v*: a 25th of the gradient."""
    images, (field, network) = C * torch.randn(300, 1, 4, 4), clamped(kind, Linear(), scale=1.5)
    exact, found = (
        gradient_share(v, field.parameters(), Linear(), images, [level], seed=0).data_end for v in (field, network)
    )
    assert (found.norm, found.loss) == pytest.approx((exact.norm / 25, exact.loss / 25), rel=1e-3)
