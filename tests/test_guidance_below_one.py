"""A guidance scale below 1, 0 and a negative one are scales like any other."""

from __future__ import annotations

import pytest
import torch

from flowexp.flow.sampler import Sampler


class Network:
    """v = (label + 1) x: 0.5 x for "nothing", which is the label -0.5."""

    def __call__(self, x, t, label=None):
        return (label + 1)[:, None] * x

    def null_condition(self, label):
        return None if label is None else torch.full_like(label, -0.5)


X, T, LABEL = torch.randn(3, 2), torch.tensor([0.2, 0.5, 0.9]), torch.tensor([0.0, 1.0, 2.0])


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 0.999, 1.0, 1.001, 3.0])
def test_the_guided_velocity_is_on_the_line_through_both(scale):
    field = Sampler(guidance_scale=scale).velocity_field(Network(), LABEL)
    expected = 0.5 * X + scale * (LABEL[:, None] + 0.5) * X
    torch.testing.assert_close(field(X, T), expected)


@pytest.mark.parametrize("scale", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_so_is_the_autoguided_one(scale):
    def weak(x, t, label=None):
        return 0.1 * x

    field = Sampler(autoguidance_scale=scale).velocity_field(Network(), LABEL, weak)
    torch.testing.assert_close(field(X, T), 0.1 * X + scale * (LABEL[:, None] + 0.9) * X)


@pytest.mark.parametrize("scale", [0.5, 0.0])
def test_a_scale_below_one_needs_a_condition_too(scale):
    with pytest.raises(ValueError, match=f"guidance_scale={scale} needs labels"):
        Sampler(guidance_scale=scale).velocity_field(Network(), None)


@pytest.mark.parametrize(("interval", "guided"), [([0, 0.3], [True, False, False]), ([0.5, 1], [False, True, True])])
def test_outside_of_its_interval_the_velocity_is_the_conditional_one(interval, guided):
    field = Sampler(guidance_scale=0.5, guidance_interval=interval).velocity_field(Network(), LABEL)
    inside = 0.5 * X + 0.5 * (LABEL[:, None] + 0.5) * X
    torch.testing.assert_close(
        field(X, T), torch.where(torch.tensor(guided)[:, None], inside, (LABEL[:, None] + 1) * X)
    )
