from __future__ import annotations

import pytest
import torch

from flowexp.data import to_float
from flowexp.flow.interpolants import GVP, SBDMVP, Linear
from flowexp.flow.losses import ExactField
from flowexp.measuring.diagnostics import velocity_norms

C, LEVELS = 0.5, [0.02, 0.4, 0.97]


@pytest.mark.parametrize("path", [Linear(), GVP(), SBDMVP()], ids=lambda path: path.name)
def test_the_optimal_field_of_gaussian_data_has_its_closed_form(path, gaussian_field):
    images = C * torch.randn(3000, 1, 8, 8)
    field = gaussian_field(path, C**2)
    for point in velocity_norms(field, path, images, LEVELS, seed=0):
        t = torch.tensor(point.t, dtype=torch.float64)
        variance = path.alpha(t) ** 2 * C**2 + path.sigma(t) ** 2
        noise, data = float(path.sigma_dot(t)), float(-path.alpha_dot(t) * C)
        velocity, target = abs(float(field.slope(t))) * float(variance.sqrt()), (noise**2 + data**2) ** 0.5
        measured = (point.noise, point.data, point.target, point.velocity)
        assert measured == pytest.approx((noise, data, target, velocity), rel=0.02, abs=0.003)
        assert point.energy_ratio == pytest.approx((velocity / target) ** 2, rel=0.03, abs=0.001)
        assert point.ratio == pytest.approx(velocity / target, rel=0.02, abs=0.003) and point.deficit == 1 - point.ratio
        assert point.cosine == pytest.approx(velocity / target, rel=0.05, abs=0.01)  # E<v, v*> = E|v|^2 for the optimum


def test_an_optimal_field_has_a_deficit_and_is_no_underestimate(gaussian_field):
    images = torch.randn(3000, 1, 8, 8)
    for point in velocity_norms(gaussian_field(Linear(), 1.0), Linear(), images, [0.1, 0.95], seed=0):
        assert point.deficit > 0.25
        assert abs(point.best_scale - 1) < 4 * point.best_scale_se < 0.03


def test_a_field_that_is_too_short_asks_for_the_scale_that_was_taken_from_it(gaussian_field):
    images = torch.randint(0, 256, (300, 1, 8, 8), dtype=torch.uint8)
    whole, short = (
        velocity_norms(gaussian_field(Linear(), 0.3, scale), Linear(), images, LEVELS, 0, prepare=to_float)
        for scale in (1.0, 0.8)
    )
    for full, part in zip(whole, short, strict=True):
        assert part.best_scale == pytest.approx(full.best_scale / 0.8, rel=1e-5)
        assert (part.ratio, part.cosine) == pytest.approx((0.8 * full.ratio, full.cosine), rel=1e-5)


def test_each_image_meets_its_own_label():
    labels = torch.tensor([0.0, 1.0, 2.0] * 100)
    curve = velocity_norms(
        lambda x, t, label: x / t.reshape(-1, 1, 1, 1) * label.reshape(-1, 1, 1, 1),
        Linear(), torch.zeros(300, 1, 4, 4), [0.5], 0, labels=labels, batch_size=32,
    )  # fmt: skip
    assert curve.data_end.ratio == pytest.approx(1)  # the mean of 0, 1 and 2


def test_beside_the_exact_field_the_optimal_network_differs_in_nothing():
    images = torch.randn(40, 1, 8, 8) + 0.7
    exact = ExactField(images, Linear())
    for point in velocity_norms(exact, Linear(), images, LEVELS, seed=0, exact=exact):
        assert (point.exact, point.exact_sd, point.exact_ratio) == (point.velocity, point.velocity_sd, point.ratio)
        assert point.from_exact == 0 and point.velocity_sd > 0 and point.target_sd > 0


def test_the_exact_length_at_the_noise_end_is_the_noises_and_the_mean_images():
    images = 0.2 * torch.randn(60, 1, 16, 16) + 0.7
    short = ExactField(images, Linear())
    (point,) = velocity_norms(lambda x, t, _: 0.8 * short(x, t), Linear(), images, [1.0], seed=0, exact=short)
    assert point.mean_image == pytest.approx(0.7, rel=0.01)
    assert point.exact == pytest.approx((1 + point.mean_image**2) ** 0.5, rel=0.02)
    assert point.velocity == pytest.approx(0.8 * point.exact) and point.from_exact == pytest.approx(
        0.2 * point.exact, rel=0.01
    )
    assert point.centred_exact == pytest.approx(1, rel=0.02)  # VD's noise norm, of data whose mean is zero
    assert point.centred_target == pytest.approx((1 + 0.2**2) ** 0.5, rel=0.02)
