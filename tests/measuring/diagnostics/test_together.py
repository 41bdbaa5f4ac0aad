"""Every diagnostic on one class-conditional transformer and stored bytes, as the command runs them."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.data import to_float
from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.measuring import diagnostics
from flowexp.measuring.metrics import moments_of

LEVELS = [0.05, 0.5, 0.95]
COMMON = {"seed": 0, "batch_size": 32, "prepare": to_float}


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(1)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, num_classes=10).eval()
    for parameter in backbone.parameters():  # zero-initialised layers would make every velocity zero
        torch.nn.init.normal_(parameter, std=0.05)
    return backbone


@pytest.fixture(scope="module")
def pictures():
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (40, 1, 8, 8), dtype=torch.uint8, generator=generator), torch.arange(40) % 10


def finite(curve):
    return all(math.isfinite(value) for row in curve.rows() for value in row.values())


@pytest.mark.slow
def test_every_curve_is_finite_and_has_its_words(network, pictures):
    images, labels = pictures
    given = {**COMMON, "labels": labels}
    condition = diagnostics.measure_condition(network, Linear(), images, LEVELS, **given)
    gradient = diagnostics.gradient_share(network, network.parameters(), Linear(), images, LEVELS, **given)
    norms = diagnostics.velocity_norms(network, Linear(), images, LEVELS, **given)
    basis = diagnostics.semantic_subspace(images, labels, to_float)
    encode = diagnostics.tapped_encoder(network)
    jacobian = diagnostics.encoder_jacobian(encode, Linear(), images, LEVELS, basis, num_probes=1, **COMMON)
    lag = diagnostics.integration_lag(
        Sampler("euler", num_steps=6), network, Linear(), images, 25, labels=labels[:25], max_dim=8, **COMMON
    )
    curves = {"norms": norms, "lag": lag, "condition": condition, "jacobian": jacobian, "gradient": gradient}
    assert all(finite(curve) for curve in curves.values())
    assert len(diagnostics.verdict(**curves)) == 5  # of a network that was never trained: most is no verdict
    proposal = diagnostics.calibrate_ssc(norms, lag)
    assert 1 <= proposal.s0 <= 1.3 and proposal.rows()[0]["s1"] == 1.0
    assert all(parameter.grad is None for parameter in network.parameters())


@pytest.mark.slow
def test_controls_are_sampled_with_the_same_noise_and_compared(network, pictures):
    images, labels = pictures
    controls = diagnostics.ssc_controls(Sampler(), constants=[1.05], num_steps=[3])
    project = diagnostics.create_projection(64, 6)
    features = {
        name: project(sampler.sample(network, Linear(), range(30), (1, 8, 8), 0, labels[:30]).images)
        for name, sampler in controls.items()
    }
    clean = project(to_float(images))
    reference = moments_of(clean)
    scores = diagnostics.compare_samplers(features, reference, diagnostics.ControlledSampler.plain, num_resamples=20)
    assert [score.sampler for score in scores] == list(controls)
    assert all(score.low <= score.high for score in scores)
