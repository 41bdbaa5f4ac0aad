"""Every diagnostic of a velocity on Gaussian data of any mean and covariance, beside its closed form in numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.measuring.diagnostics import gradient_share, loss_by_noise_level, measure_condition, velocity_norms

DIM, SHORT = 9, 0.9
RANDOM = np.random.default_rng(5)
FACTOR = RANDOM.normal(size=(DIM, DIM)) / 3
COVARIANCE = FACTOR @ FACTOR.T + 0.05 * np.eye(DIM)
MEAN = 0.6 * RANDOM.normal(size=DIM)
PATHS = [Linear(), GVP(), SBDMVP()]
LEVELS = [0.1, 0.5, 0.95]


def coefficients(path, t):
    """alpha, sigma, alpha', sigma', written down anew."""
    if path.name == "linear":
        return 1 - t, t, -1.0, 1.0
    if path.name == "gvp":
        angle = math.pi * t / 2
        return math.cos(angle), math.sin(angle), -math.pi / 2 * math.sin(angle), math.pi / 2 * math.cos(angle)
    alpha = math.exp(-(0.1 * t + 19.9 * t**2 / 2) / 2)
    sigma, alpha_dot = math.sqrt(1 - alpha**2), -(0.1 + 19.9 * t) / 2 * alpha
    return alpha, sigma, alpha_dot, -alpha * alpha_dot / sigma


class Regression(torch.nn.Module):
    """E[v* | xt] = alpha' m + G (xt - alpha m), G = Cov(v*, xt) Cov(xt)^-1, times a weight."""

    def __init__(self, path, weight):
        super().__init__()
        self.path, self.weight = path, torch.nn.Parameter(torch.tensor(weight, dtype=torch.float64))

    def moments(self, t):
        """G, E|E[v* | xt]|^2 and E|v*|^2."""
        alpha, sigma, alpha_dot, sigma_dot = coefficients(self.path, t)
        spread = alpha**2 * COVARIANCE + sigma**2 * np.eye(DIM)
        slope = (alpha * alpha_dot * COVARIANCE + sigma * sigma_dot * np.eye(DIM)) @ np.linalg.inv(spread)
        known = alpha_dot**2 * MEAN @ MEAN + np.trace(slope @ spread @ slope.T)
        return slope, known, alpha_dot**2 * (np.trace(COVARIANCE) + MEAN @ MEAN) + sigma_dot**2 * DIM

    def forward(self, x, t, label=None):
        alpha, _, alpha_dot, _ = coefficients(self.path, float(t[0]))
        slope, mean = torch.as_tensor(self.moments(float(t[0]))[0]), torch.as_tensor(MEAN)
        return (self.weight * (alpha_dot * mean + (x.flatten(1) - alpha * mean) @ slope.T)).reshape_as(x)


def images(num):
    generator = torch.Generator().manual_seed(2)
    values = torch.randn(num, DIM, dtype=torch.float64, generator=generator)
    return (torch.as_tensor(MEAN) + values @ torch.as_tensor(np.linalg.cholesky(COVARIANCE)).T).reshape(num, 1, 3, 3)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_lengths_scale_and_loss(path):
    """v = s f and E<f, v*> = E|f|^2: so the best scale is 1 / s, and the error E|v*|^2 - s (2 - s) E|f|^2."""
    network, data = Regression(path, SHORT), images(20_000)
    losses = loss_by_noise_level(network, path, data, LEVELS, seed=0)
    for point in velocity_norms(network, path, data, LEVELS, seed=0):
        _, known, whole = network.moments(point.t)
        assert point.energy_ratio == pytest.approx(SHORT**2 * known / whole, rel=0.03)
        assert abs(point.best_scale - 1 / SHORT) < 4 * point.best_scale_se
        assert losses[point.t].loss == pytest.approx((whole - SHORT * (2 - SHORT) * known) / DIM, rel=0.03)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_condition_numbers(path):
    """Along noise |G|_F / sqrt(d), along data sqrt(tr(G C G^T) / tr C): a linear field is its own Jacobian."""
    network = Regression(path, SHORT)
    for point in measure_condition(network, path, images(4000), LEVELS, seed=0):
        alpha, sigma, alpha_dot, sigma_dot = coefficients(path, point.t)
        slope = SHORT * network.moments(point.t)[0]
        noise, data = (
            np.linalg.norm(slope) / 3,
            math.sqrt(np.trace(slope @ COVARIANCE @ slope.T) / np.trace(COVARIANCE)),
        )
        assert (point.noise_exact, point.data_exact) == pytest.approx((sigma_dot / sigma, -alpha_dot / alpha))
        assert (point.noise_target, point.data_target) == pytest.approx((point.noise_exact, point.data_exact), rel=1e-6)
        assert (point.noise_network, point.noise_local) == pytest.approx((noise, noise), rel=0.03)
        assert (point.data_network, point.data_local) == pytest.approx((data, data), rel=0.03)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_gradients(path):
    """d/ds of the error is 2 (s - 1) E|f|^2 / d at each level, weighted by how often the level is drawn."""
    network, weights = Regression(path, 0.5), [1.0, 2.0, 1.0]
    curve = gradient_share(network, network.parameters(), path, images(20_000), LEVELS, 0, weights=weights)
    expected = [w / 4 * network.moments(t)[1] / DIM for t, w in zip(LEVELS, weights, strict=True)]
    assert curve.values("norm") == pytest.approx(expected, rel=0.05)
    assert curve.values("share") == pytest.approx([g / sum(expected) for g in expected], rel=0.05)
    assert curve.values("along") == pytest.approx(curve.values("share"))  # all pull the same way
