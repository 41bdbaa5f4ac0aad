"""What a step's losses are made of: the labels, the noise, the interval of t and the rows that they should be."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

sys.path.append(str(Path(__file__).parent))

from flowexp.backbones import create_backbone
from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.parameterization import Parameterization
from flowexp.flow.time_samplers import LogitNormal, Uniform
from flowexp.objectives import FlowMatching, LocalContrastiveFlow
from flowexp.objectives.terms import Term
from flowexp.training.step_draws import StepKey, TrainingBatch, draw_noise, draw_times

LOW_AND_HIGH = [0.01, 0.5, 0.03, 0.9, 0.2]


def small_backbone(**options):
    """A network of 3 blocks whose output is not zero."""
    torch.manual_seed(0)
    backbone = create_backbone("dit_nano2", resolution=8, channels=1, depth=3, width=16, heads=2, **options)
    with torch.no_grad():
        for parameter in backbone.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return backbone


def batch_at(t, **parts):
    data, noise = torch.randn(2, len(t), 1, 8, 8, generator=torch.Generator().manual_seed(0))
    return TrainingBatch(data=data, noise=noise, t=torch.tensor(t), **parts)


def contrast_by_loops(module, batch, noise_of_positives, tau):
    """LCF Algorithm 1, lines 5 and 7, one row after the other, each under its own label."""

    def h(i, t, noise):
        xt = (1 - t) * batch.data[i] + t * noise[i]
        label = None if batch.label is None else batch.label[i : i + 1]
        return module.backbone.features(xt[None], torch.tensor([t]), label, [module.tap])[module.tap].flatten()

    def closeness(a, b):
        return math.e ** (-((a - b) ** 2).mean() / tau)

    levels, terms = batch.t.tolist(), []
    for i, t in enumerate(levels):
        if t < module.t_min:
            z, positive = h(i, t, batch.noise), h(i, module.t_min, noise_of_positives)
            others = sum(closeness(z, h(j, tj, batch.noise)) for j, tj in enumerate(levels))
            terms.append(-(closeness(z, positive) / others).log())
    return sum(terms) / len(terms)


@pytest.mark.parametrize("shared_noise", [True, False])
@pytest.mark.parametrize("labelled", [True, False])
def test_positives_are_of_the_anchors_label_and_noise(labelled, shared_noise):
    module = LocalContrastiveFlow(
        backbone=small_backbone(num_classes=10 if labelled else None), t_min=0.05, tau=0.3, shared_noise=shared_noise
    )
    label = torch.tensor([3, 1, 4, 10, 5]) if labelled else None  # 10 is no label
    batch = batch_at(LOW_AND_HIGH, label=label, key=StepKey(seed=2, step=9))
    noise = batch.noise if shared_noise else draw_noise(batch.key, batch.data, fresh=True)
    with torch.no_grad():
        expected = contrast_by_loops(module, batch, noise, tau=0.3)
        torch.testing.assert_close(module.losses(batch).terms["contrast"], expected, rtol=1e-4, atol=1e-5)


def test_fresh_noise_is_another_draw_of_the_same_law():
    data = torch.zeros(64, 1, 8, 8)
    key = StepKey(seed=2, step=9)
    noise, fresh = draw_noise(key, data), draw_noise(key, data, fresh=True)
    correlation = torch.corrcoef(torch.stack([noise.flatten(), fresh.flatten()]))[0, 1]
    assert abs(float(correlation)) < 0.06  # 4096 pairs: 4 standard errors
    assert float(fresh.std()) == pytest.approx(1, abs=0.05)
    assert torch.equal(fresh, draw_noise(key, data, fresh=True))


@pytest.mark.parametrize(("path", "low"), [(Linear(), 0.0), (GVP(), 0.0), (SBDMVP(), 1e-5)])
def test_t_is_drawn_in_the_interval_that_the_path_is_trained_on(path, low):
    module = FlowMatching(small_backbone(), interpolant=path)
    data, key = torch.zeros(4096, 1, 8, 8), StepKey(seed=1, step=2)
    t = module.draw(data, torch.zeros(4096, dtype=torch.long), key).t.double()
    uniform = draw_times(key, Uniform(), 4096, (0.0, 1.0)).double()
    assert float((t - low - (1 - low) * uniform).abs().max()) < 2e-7
    assert float(t.min()) >= low


def test_t_is_of_the_law_that_is_given():
    module = FlowMatching(small_backbone(), time_sampler=LogitNormal(-1.0, 0.5))
    key = StepKey(seed=1, step=2)
    t = module.draw(torch.zeros(8, 1, 8, 8), torch.zeros(8, dtype=torch.long), key).t
    assert torch.equal(t, draw_times(key, LogitNormal(-1.0, 0.5), 8, (0.0, 1.0)))


@pytest.mark.parametrize("prediction", ["data", "noise"])
@pytest.mark.parametrize("loss_space", ["data", "noise"])
def test_the_reported_error_of_each_regressed_row_is_its_own(prediction, loss_space):
    """LCF regresses some of the rows: what it reports is what FM reports of a batch of these alone."""
    parts = {"backbone": small_backbone(), "parameterization": Parameterization(prediction, loss_space)}
    batch = batch_at(LOW_AND_HIGH)
    rows = batch.t >= 0.05
    alone = TrainingBatch(batch.data[rows], batch.noise[rows], batch.t[rows])
    with torch.no_grad():
        found = LocalContrastiveFlow(t_min=0.05, **parts).losses(batch)
        expected = FlowMatching(**parts).losses(alone)
    assert torch.equal(found.t, alone.t)
    torch.testing.assert_close(found.error, expected.error)
    torch.testing.assert_close(found.terms["velocity"], expected.terms["velocity"])


class Scalar(Term):
    """A trained number whose gradient can be large."""

    name = "scalar"
    taps = ()

    def attach(self, backbone):
        self.scale = nn.Parameter(torch.ones(3))

    def forward(self, step):
        return self.scale.square().sum()


@pytest.mark.parametrize("clip_norm", [0.5, None])
def test_clipping_is_of_the_whole_gradient_terms_included(clip_norm):
    module = FlowMatching(small_backbone(), terms={"scalar": Scalar(1.0)})
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.grad = torch.full_like(parameter, 2.0)
    count = sum(parameter.numel() for parameter in trained)
    assert count == sum(p.numel() for p in module.backbone.parameters() if p.requires_grad) + 3
    module.configure_gradient_clipping(SimpleNamespace(), clip_norm)
    assert float(module.latest["grad_norm"]) == pytest.approx(2 * count**0.5, rel=1e-5)
    clipped = sum(float(parameter.grad.square().sum()) for parameter in trained) ** 0.5
    assert clipped == pytest.approx(2 * count**0.5 if clip_norm is None else clip_norm, rel=1e-4)
    assert float(module.terms["scalar"].scale.grad[0]) == pytest.approx(clipped / count**0.5, rel=1e-4)
