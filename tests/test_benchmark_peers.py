"""Peers of a training step and of a sampler do the work that flowexp's does."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import peer_steps, peers
from benchmarks.sizes import smoke_size
from benchmarks.steps import Training, trained_parameters
from flowexp.backbones import Backbone
from flowexp.flow.interpolants import Linear
from flowexp.flow.randomness import SampleNoise
from flowexp.flow.sampler import Sampler

TINY = smoke_size()
T = torch.tensor([0.1, 0.4, 0.7, 0.9])


def our_loss(network: Backbone, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """Flow matching on the linear path, t = 0 at the data."""
    return F.mse_loss(network(torch.lerp(data, noise, t[:, None, None, None]), t), noise - data)


@pytest.fixture
def network() -> Backbone:
    """One whose output is not zero."""
    network = TINY.create_network().eval()
    for parameter in trained_parameters(network).values():
        torch.nn.init.normal_(parameter, std=0.1)
    return network


@pytest.fixture
def pair() -> tuple[Tensor, Tensor]:
    """Data and noise."""
    return torch.randn(4, 3, 8, 8), torch.randn(4, 3, 8, 8)


def test_the_loss_of_torchcfm_is_ours(network: Backbone, pair: tuple[Tensor, Tensor]):
    flow = pytest.importorskip("torchcfm.conditional_flow_matching")
    theirs = peer_steps.torchcfm_loss(flow.ConditionalFlowMatcher(sigma=0.0), network, *pair, 1 - T)
    torch.testing.assert_close(theirs, our_loss(network, *pair, T))


def test_the_loss_of_diffusers_is_ours(network: Backbone, pair: tuple[Tensor, Tensor]):
    from diffusers import FlowMatchEulerDiscreteScheduler

    theirs = peer_steps.diffusers_loss(FlowMatchEulerDiscreteScheduler(), network, *pair, 1000 * T)
    torch.testing.assert_close(theirs, our_loss(network, *pair, T))


@pytest.mark.parametrize("peer", peers.STEPS)
def test_a_step_of_a_peer_moves_every_weight(peer: str):
    if not peers.is_installed(peer):
        pytest.skip(f"{peer} is not installed")
    training = Training.of(TINY)
    network = deepcopy(training.network)
    for parameter in trained_parameters(network).values():
        torch.nn.init.normal_(parameter, std=0.1)  # else some have no gradient yet
    before = {name: parameter.detach().clone() for name, parameter in trained_parameters(network).items()}
    peers.STEPS[peer](network, training.data, TINY)()
    assert not [name for name, parameter in trained_parameters(network).items() if torch.equal(parameter, before[name])]


@pytest.mark.parametrize("peer", peers.SAMPLERS)
def test_the_samples_of_a_peer_are_ours(peer: str, network: Backbone, monkeypatch: pytest.MonkeyPatch):
    if not peers.is_installed(peer):
        pytest.skip(f"{peer} is not installed")
    monkeypatch.setattr(type(TINY), "precision", "32-true")
    ours = Sampler("euler", TINY.solver_steps).sample(network, Linear(), range(2), (3, 8, 8), seed=0).images
    noise = SampleNoise(0, range(2), (3, 8, 8)).draw()
    monkeypatch.setattr(torch, "randn", lambda *shape, **options: noise.clone())
    torch.testing.assert_close(peers.SAMPLERS[peer](network, TINY)(), ours, rtol=1e-4, atol=1e-5)


def test_a_peer_that_is_not_installed_is_left_out_and_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(peers, "is_installed", lambda package: False)
    for part in ("distances", "classifiers"):
        monkeypatch.setattr(peers, part, lambda size, rounds: [])
    result = peers.peers(TINY, 1)
    assert result.rows == []
    assert result.notes[0] == "torchcfm left out: pip install 'flowexp[bench]'" and "diffusers" in result.notes[1]
