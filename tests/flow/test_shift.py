"""The shift of noise levels, in the grid of sampling and in the law of training."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowexp.flow.interpolants import GVP, Linear
from flowexp.flow.sampler import Sampler
from flowexp.flow.solvers import SOLVERS, EulerMaruyama, create_solver
from flowexp.flow.time import shifted, unshifted
from flowexp.flow.time_samplers import LogitNormal, Stratified, TimeSampler, Uniform

SHIFTS = (0.5, 3.0, 6.93)
LAWS = (Uniform, LogitNormal, Stratified)


def visited(solver: object, path: object = None, **how: object) -> list[float]:
    """The levels at which the network is asked, of all solvers but the adaptive one."""
    seen: list[float] = []

    def field(x: Tensor, t: Tensor) -> Tensor:
        seen.append(float(t[0]))
        return torch.zeros_like(x)

    noise = torch.randn(1, 2, dtype=torch.float64)
    solver.solve(field, noise, path or Linear(), lambda: torch.zeros_like(noise), **how)  # type: ignore[attr-defined]
    return seen


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_grid_is_the_formula(shift: float) -> None:
    expected = [shift * s / (1 + (shift - 1) * s) for s in (1, 0.75, 0.5, 0.25)]
    assert visited(create_solver("euler", 4, shift=shift)) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("shift", SHIFTS)
def test_levels_come_back(shift: float) -> None:
    t = torch.linspace(0, 1, 33, dtype=torch.float64)
    torch.testing.assert_close(unshifted(shifted(t, shift), shift), t, rtol=0, atol=1e-12)
    assert shifted(0.0, shift) == 0 and shifted(1.0, shift) == pytest.approx(1)


@pytest.mark.parametrize("name", [name for name in SOLVERS if name != "dopri5"])
@pytest.mark.parametrize("path", [Linear(), GVP()], ids=lambda path: path.name)
def test_without_a_shift_no_bit_of_the_grid_changes(name: str, path: object) -> None:
    """Compared with the grid as it was before there was a shift, a plain linspace."""
    diffusion = {"diffusion": "sbdm"} if SOLVERS[name].stochastic else {}
    solver = create_solver(name, 7, **diffusion)
    high, end = (1 - (1 - 0.04) / 7, 0.04) if diffusion else (1.0, 0.0)
    plain = torch.linspace(high, end, 7 if diffusion else 8, dtype=torch.float64).tolist()
    assert set(plain[: 6 if diffusion else 7]) <= {*visited(solver, path)}


@pytest.mark.parametrize("shift", SHIFTS)
def test_the_grid_is_that_of_diffusers_for_the_same_levels(shift: float) -> None:
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
    scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
    scheduler.set_timesteps(sigmas=[1.0, 0.8, 0.6, 0.4, 0.2])
    theirs = scheduler.sigmas[:-1].tolist()
    assert visited(create_solver("euler", 5, shift=shift)) == pytest.approx(theirs, rel=1e-6)


def test_diffusers_own_levels_end_where_ours_do_not() -> None:
    """Left to itself its last step is from 1/1000, which it shifts twice: docs/ssc_elsewhere.md says so."""
    diffusers = pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
    for shift in (1.0, 3.0):
        scheduler = diffusers.FlowMatchEulerDiscreteScheduler(shift=shift)
        scheduler.set_timesteps(5)
        assert float(scheduler.sigmas[-2]) == pytest.approx(shifted(shifted(0.001, shift), shift), rel=1e-5)


@pytest.mark.parametrize("start_eps", [None, 0.01])
def test_the_ends_of_an_sde_stay_where_they_are(start_eps: float | None) -> None:
    solver = EulerMaruyama(5, diffusion="sbdm", start_eps=start_eps, shift=3.0)
    levels = visited(solver)
    assert levels[-1] == pytest.approx(0.04, rel=1e-12)
    before = [float(unshifted(level, 3.0)) for level in levels]
    steps = [a - b for a, b in pairwise(before)]
    assert steps == pytest.approx([steps[0]] * 4)
    assert levels[0] == pytest.approx(shifted(1 - steps[0], 3.0) if start_eps is None else 0.99)


def test_a_grid_that_stops_early_is_shifted_between_its_own_ends() -> None:
    sampler = Sampler("euler", num_steps=4, shift=3.0, final_jump=0.1)
    levels = visited(Sampler("euler", num_steps=3, shift=3.0).integrator, t_end=0.1)
    ends = [float(unshifted(level, 3.0)) for level in (1.0, 0.1)]
    assert levels[1] == pytest.approx(shifted(ends[0] - (ends[0] - ends[1]) / 3, 3.0))
    assert sampler.integrator.shift == 3.0


def test_a_sampler_without_a_shift_has_the_protocol_that_it_had() -> None:
    assert "shift" not in Sampler().protocol() and Sampler(shift=3.0).protocol()["shift"] == 3.0


@pytest.mark.parametrize("law", LAWS)
def test_a_law_without_a_shift_draws_the_same_bits(law: type[TimeSampler]) -> None:
    plain = law().draw(64, torch.Generator().manual_seed(0))
    assert torch.equal(law()(64, torch.Generator().manual_seed(0)), plain.clamp(0, 1))


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("shift", SHIFTS)
def test_a_law_with_a_shift_draws_shifted_levels_and_says_their_density(law: type[TimeSampler], shift: float) -> None:
    sampler = law(shift=shift)
    plain = law().draw(4096, torch.Generator().manual_seed(0))
    drawn = sampler(4096, torch.Generator().manual_seed(0))
    torch.testing.assert_close(drawn, shift * plain / (1 + (shift - 1) * plain))
    middles = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    below = sampler.density(middles)[:6_000].sum() / 20_000  # the integral up to 0.3
    assert float(below) == pytest.approx(sampler.share_below(0.3), abs=1e-4)
    assert float((drawn < 0.3).double().mean()) == pytest.approx(sampler.share_below(0.3), abs=0.03)


def test_a_shifted_logit_normal_is_one_of_another_mean() -> None:
    t = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    same = LogitNormal(0.3 + math.log(3.0), 0.8)
    torch.testing.assert_close(LogitNormal(0.3, 0.8, shift=3.0).density(t), same.density(t))
    assert LogitNormal(0.3, 0.8, shift=3.0).share_below(0.2) == pytest.approx(same.share_below(0.2), rel=1e-12)


def test_a_law_names_its_shift_where_it_has_one() -> None:
    assert str(Uniform()) == "Uniform()" and str(LogitNormal(shift=3.0)) == "LogitNormal(m=0.0, s=1.0), shifted by 3"


@pytest.mark.parametrize("shift", [0.0, -1.0, math.inf, math.nan])
def test_a_shift_that_is_no_positive_number_is_refused_by_its_key(shift: float) -> None:
    with pytest.raises(ValueError, match=r"time_sampler\.shift"):
        Uniform(shift=shift)
    with pytest.raises(ValueError, match=r"sampler\.shift"):
        Sampler(shift=shift)
