from __future__ import annotations

import math

import pytest
import torch

from flowexp.flow.profiles import PROFILES, create_profile, scale_schedule, unit_weight

GRID = (torch.arange(200_000, dtype=torch.float64) + 0.5) / 200_000  # midpoints
ENDS = torch.tensor([0.0, 1.0])

# VD Table 7: the start of each shape for which the extra scale is the same, with s1 = 1.
VD_TABLE_7 = {"linear": 1.10, "cosine": 1.10, "quad_in": 1.075, "quad_out": 1.15}


@pytest.mark.parametrize("name", sorted(set(PROFILES) - {"constant"}))
def test_a_profile_falls_from_one_to_zero(name: str):
    profile = create_profile(name)
    assert profile(ENDS).tolist() == pytest.approx([1, 0], abs=1e-7)
    assert (profile(GRID).diff() < 0).all()


def test_the_constant_profile_stays_at_one():
    assert torch.equal(create_profile("constant")(GRID), torch.ones_like(GRID))


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_the_stated_area_is_the_integral(name: str):
    profile = create_profile(name)
    assert profile(GRID).mean().item() == pytest.approx(profile.area, rel=1e-9)


@pytest.mark.parametrize(("name", "s0"), VD_TABLE_7.items())
def test_the_four_shapes_of_vd_table_7_add_the_same_area(name: str, s0: float):
    assert (scale_schedule(name, s0, 1.0)(GRID) - 1).mean().item() == pytest.approx(0.05, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda t: 1.1 - 0.1 * t),
        ("cosine", lambda t: 1 + 0.1 * (1 + math.cos(math.pi * t)) / 2),
        ("quad_in", lambda t: 1 + 0.075 * (1 - t**2)),
        ("quad_out", lambda t: 1 + 0.15 * (1 - t) ** 2),
    ],
)
def test_the_scales_are_those_printed_in_vd(name: str, formula):
    """Transcribed, with VD's t, which runs from noise to data: it is progress."""
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = torch.tensor([formula(value) for value in t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(scale_schedule(name, VD_TABLE_7[name], 1.0)(t), expected)


def test_a_scale_runs_from_s0_at_the_noise_end_to_s1_at_the_data_end():
    assert scale_schedule("linear", 1.0, 1.1)(ENDS).tolist() == pytest.approx([1.0, 1.1])
    assert scale_schedule("constant", 1.05, 1.05)(ENDS).tolist() == pytest.approx([1.05, 1.05])


@pytest.mark.parametrize("name", sorted(PROFILES))
def test_every_unit_weight_has_the_integral_of_the_linear_one(name: str):
    assert unit_weight(name)(GRID).mean().item() == pytest.approx(0.5, rel=1e-9)


@pytest.mark.parametrize(
    ("name", "formula"),
    [
        ("linear", lambda t: 1 - t),
        ("cosine", lambda t: (1 + math.cos(math.pi * t)) / 2),
        ("quad_in", lambda t: 0.75 * (1 - t**2)),
        ("quad_out", lambda t: 1.5 * (1 - t) ** 2),
    ],
)
def test_the_weights_are_those_of_vd_table_9(name: str, formula):
    t = torch.linspace(0, 1, 11, dtype=torch.float64)
    expected = torch.tensor([formula(value) for value in t.tolist()], dtype=torch.float64)
    torch.testing.assert_close(unit_weight(name)(t), expected)


def test_an_unknown_profile_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="constant, linear, cosine, quad_in, quad_out, got 'cubic'"):
        create_profile("cubic")


def test_a_profile_is_passed_through():
    assert create_profile(PROFILES["cosine"]) is PROFILES["cosine"]
