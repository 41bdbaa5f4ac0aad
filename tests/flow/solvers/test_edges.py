"""Ends of a path where a form or a conversion is infinite: what cannot be computed is refused before it is sampled."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.flow.sampler import Sampler


def zero(x, t, label=None):
    return torch.zeros_like(x)


zero.null_condition = lambda label: None
SBDM = {"diffusion": "sbdm"}


def sample(sampler, path, network=zero):
    return sampler.sample(network, path, range(2), (1, 2, 2), seed=0).images


@pytest.mark.parametrize("path", [Linear(), GVP()])
@pytest.mark.parametrize("solver", ["euler_maruyama", "stochastic_heun"])
def test_sbdm_needs_a_step_below_the_noise_end(solver, path):
    """With one step in all it took pure noise for the level 0.52."""
    with pytest.raises(ValueError, match="num_steps must be at least 2, or start_eps be given"):
        sample(Sampler(solver, 1, SBDM), path)
    assert sample(Sampler(solver, 2, SBDM), path).isfinite().all()
    assert sample(Sampler(solver, 1, SBDM | {"start_eps": 0.01}), path).isfinite().all()


def test_sbdm_is_finite_on_its_own_path():
    assert sample(Sampler("euler_maruyama", 1, SBDM), SBDMVP()).isfinite().all()


class Backbone:
    def __call__(self, x, t, label=None):
        return 0.3 * x

    def null_condition(self, label):
        return None


@pytest.mark.parametrize("path", [Linear(), GVP()])
def test_predicted_noise_without_a_clamp_cannot_start_at_pure_noise(path):
    network = VelocityNetwork(Backbone(), path, Parameterization("noise", "noise", clamp=0.0))
    with pytest.raises(ValueError, match=r"clamp=0 makes the velocity of predicted noise infinite at t = 1"):
        sample(Sampler("euler", 4), path, network)
    for parameterization in (Parameterization("noise", "noise"), Parameterization("data", "data", clamp=0.0)):
        network = VelocityNetwork(Backbone(), path, parameterization)
        assert sample(Sampler("euler", 4), path, network).isfinite().all()


def test_a_path_that_ends_before_pure_noise_needs_no_clamp():
    network = VelocityNetwork(Backbone(), SBDMVP(), Parameterization("noise", "noise", clamp=0.0))
    assert sample(Sampler("euler", 4), SBDMVP(), network).isfinite().all()
