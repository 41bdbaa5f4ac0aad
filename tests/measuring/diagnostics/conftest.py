from __future__ import annotations

import pytest
import torch

from flowexp.flow.time import expand


class GaussianField(torch.nn.Module):
    """The optimal velocity of an interpolant for data ~ N(0, diag(variance)): linear in x, here times `scale`."""

    def __init__(self, interpolant, variance, scale=1.0):
        super().__init__()
        self.interpolant, self.variance = interpolant, torch.as_tensor(variance)
        self.scale = torch.nn.Parameter(torch.tensor(scale))

    def slope(self, t):
        """v / x at t, for each value of x."""
        path = self.interpolant
        top = path.alpha(t) * path.alpha_dot(t) * self.variance + path.sigma(t) * path.sigma_dot(t)
        return top / (path.alpha(t) ** 2 * self.variance + path.sigma(t) ** 2)

    def forward(self, x, t, label=None):
        return self.scale * self.slope(expand(t, x)) * x

    def null_condition(self, label):
        return None


@pytest.fixture
def gaussian_field():
    return GaussianField
