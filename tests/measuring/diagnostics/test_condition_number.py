from __future__ import annotations

import math

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.measuring.diagnostics import condition_number, measure_condition

PATHS = [Linear(), GVP(), SBDMVP()]


def test_on_the_linear_path_kappa_is_one_over_t():
    t = torch.tensor([0.001, 0.02, 0.5, 1.0])
    torch.testing.assert_close(condition_number(Linear(), t), 1 / t.double())


def test_on_the_gvp_path_kappa_is_a_cotangent():
    t = torch.tensor([0.01, 0.3, 0.9], dtype=torch.float64)
    torch.testing.assert_close(condition_number(GVP(), t), math.pi / 2 / torch.tan(math.pi / 2 * t))


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_kappa_of_two_levels_is_that_of_many_pairs_of_one_image(path):
    """LCF eq. 18 by brute force, with the primes that eqs. 22 to 24 lose."""
    data = torch.randn(1, 6, dtype=torch.float64)
    x = []
    for level in (0.2, 0.35):
        t, noise = torch.full((200_000,), level, dtype=torch.float64), torch.randn(200_000, 6, dtype=torch.float64)
        x.append([path.interpolate(data.expand_as(noise), noise, t), path.velocity(data.expand_as(noise), noise, t)])
    dx, dv = ((a - b).square().sum(1).mean() for a, b in zip(*x, strict=True))
    t1, t2 = torch.tensor([0.2]), torch.tensor([0.35])
    found = condition_number(path, t1.double(), t2.double(), data_energy=float(data.square().mean()))
    assert float(found) == pytest.approx(float((dv / dx).sqrt()), rel=5e-3)


@pytest.mark.slow
@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_the_target_has_the_closed_form_along_noise_and_along_data(path, gaussian_field):
    images = torch.randn(20, 1, 4, 4)
    for point in measure_condition(gaussian_field(path, 1.0), path, images, [0.03, 0.4, 0.9], seed=0):
        t = torch.tensor([point.t], dtype=torch.float64)
        assert point.noise_exact == pytest.approx(float(path.sigma_dot(t) / path.sigma(t)))
        assert point.noise_target == pytest.approx(point.noise_exact, rel=1e-3)
        assert point.data_exact == pytest.approx(float(-path.alpha_dot(t) / path.alpha(t)))
        assert point.data_target == pytest.approx(point.data_exact, rel=1e-3)


def test_the_optimal_field_of_gaussian_data_has_its_slope_as_condition_number(gaussian_field):
    """Near t = 0 the slope stays at -1 + O(t), while the target demands 1 / t."""
    field = gaussian_field(Linear(), 0.25)
    for point in measure_condition(field, Linear(), torch.randn(30, 1, 4, 4) / 2, [0.01, 0.5, 0.95], seed=0):
        slope = abs(float(field.slope(torch.tensor(point.t))))
        measured = (point.noise_network, point.noise_local, point.data_network, point.data_local)
        assert measured == pytest.approx([slope] * 4, rel=1e-4)


def test_where_states_do_not_differ_the_demand_is_infinite_and_the_jacobian_is_not(gaussian_field):
    point = measure_condition(gaussian_field(Linear(), 0.25), Linear(), torch.randn(4, 1, 2, 2), [0.0], seed=0).data_end
    assert point.noise_exact == math.inf and point.noise_target == math.inf
    assert point.noise_local == pytest.approx(1) and point.data_target == pytest.approx(1)


@pytest.mark.slow
def test_a_transformers_local_number_is_that_of_a_pair_close_together():
    torch.manual_seed(1)
    network = create_backbone("dit_nano2", resolution=4, channels=1, num_classes=3).double().eval()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.1)
    images, labels = torch.randn(5, 1, 4, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1])
    close = images[:1] + 1e-4 * torch.randn(5, 1, 4, 4, dtype=torch.float64)  # all nearly one image
    same = torch.zeros_like(labels)
    point = measure_condition(network, Linear(), close, [0.0], 0, labels=same).data_end
    assert point.data_network == pytest.approx(point.data_local, rel=1e-2)
    assert measure_condition(network, Linear(), images, [0.3], 0, labels=labels) != measure_condition(
        network, Linear(), images, [0.3], 0, labels=same
    )


def test_a_pair_needs_two_images(gaussian_field):
    with pytest.raises(ValueError, match="at least 2 images, got 1"):
        measure_condition(gaussian_field(Linear(), 1.0), Linear(), torch.zeros(1, 1, 2, 2), [0.5], seed=0)
