from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from flowexp.flow.randomness import keyed_generator
from flowexp.flow.time_samplers import TIME_SAMPLERS, LogitNormal, Stratified, TimeSampler, Uniform, create_time_sampler

LAWS = [Uniform(), LogitNormal(), LogitNormal(-0.5, 1.0), LogitNormal(0.5, 0.7), Stratified()]
CONFIGS = sorted((Path(__file__).parents[2] / "conf/time_sampler").glob("*.yaml"))
everyone = pytest.mark.parametrize("law", LAWS, ids=str)


@everyone
def test_draws_follow_the_stated_density(law: TimeSampler):
    t = law(200_000, keyed_generator(0)).double()
    edges = torch.linspace(0, 1, 21, dtype=torch.float64)
    frequency = torch.histogram(t, edges).hist / len(t)
    fine = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000
    mass = law.density(fine).reshape(20, 1000).mean(1) / 20
    assert mass.sum().item() == pytest.approx(1, abs=1e-4)
    torch.testing.assert_close(frequency, mass, atol=0.003, rtol=0)


@everyone
def test_draws_are_float32_within_the_interval(law: TimeSampler):
    t = law(5000, keyed_generator(0), (0.1, 0.3))
    assert (t.shape, t.dtype) == ((5000,), torch.float32)
    assert 0.1 <= t.min() < 0.15
    assert 0.25 < t.max() <= 0.3 + 1e-7
    torch.testing.assert_close(t, 0.1 + 0.2 * law(5000, keyed_generator(0)))


@everyone
def test_draws_are_a_function_of_the_generator(law: TimeSampler):
    assert torch.equal(law(64, keyed_generator(3)), law(64, keyed_generator(3)))
    assert not torch.equal(law(64, keyed_generator(3)), law(64, keyed_generator(4)))


@pytest.mark.parametrize(("m", "s"), [(0.0, 1.0), (-0.5, 1.0), (0.5, 0.7)])
def test_the_logit_normal_density_is_lcf_eq_16(m: float, s: float):
    for t in (0.01, 0.2, 0.5, 0.9):
        logit = math.log(t / (1 - t))
        printed = 1 / (s * math.sqrt(2 * math.pi)) * 1 / (t * (1 - t)) * math.exp(-((logit - m) ** 2) / (2 * s**2))
        assert LogitNormal(m, s).density(torch.tensor(t, dtype=torch.float64)).item() == pytest.approx(printed)


def test_the_logit_normal_density_vanishes_at_the_ends():
    assert torch.equal(LogitNormal().density(torch.tensor([0.0, 1.0])), torch.zeros(2))


@everyone
def test_the_share_below_a_level_is_that_of_the_draws(law: TimeSampler):
    for level, interval in ((0.1, (0.0, 1.0)), (0.4, (0.0, 1.0)), (0.25, (0.2, 0.6)), (0.1, (0.2, 0.6))):
        drawn = (law(200_000, keyed_generator(0), interval) < level).double().mean().item()
        assert law.share_below(level, interval) == pytest.approx(drawn, abs=0.004)
    logit = [(math.log(0.1 / 0.9) - m) / s / math.sqrt(2) for m, s in ((0.0, 1.0), (0.5, 0.7))]
    exact = [(1 + math.erf(x)) / 2 for x in logit]
    assert [LogitNormal(m, s).share_below(0.1) for m, s in ((0.0, 1.0), (0.5, 0.7))] == pytest.approx(exact, rel=1e-4)


@pytest.mark.parametrize(("s", "share"), [(1.0, 5.0e-5), (3.0, 0.0973), (5.0, 0.2182), (8.0, 0.3133), (20.0, 0.4229)])
def test_the_share_below_a_level_is_exact_for_wide_laws_too(s: float, share: float):
    assert LogitNormal(0.0, s).share_below(0.02) == pytest.approx(share, rel=2e-2 if s == 1 else 1e-3)
    normal = [(math.log(t / (1 - t)) + 0.4) / s / math.sqrt(2) for t in (0.02, 0.7)]
    exact = [(1 + math.erf(x)) / 2 for x in normal]
    assert [LogitNormal(-0.4, s).share_below(t) for t in (0.02, 0.7)] == pytest.approx(exact, rel=1e-12)
    assert [LogitNormal(-0.4, s).share_below(t, (0.2, 0.6)) for t in (0.1, 0.2, 0.6, 0.9)] == [0, 0, 1, 1]


@everyone
@pytest.mark.parametrize("num", [4, 32])
def test_the_chance_of_a_batch_without_a_low_level_is_that_of_the_batches(law: TimeSampler, num: int):
    batches = torch.stack([law(num, keyed_generator(seed)) for seed in range(4000)])
    without = (batches >= 0.02).all(1).double().mean().item()
    assert law.chance_of_none(law.share_below(0.02), num) == pytest.approx(without, abs=0.03)


def test_a_negative_m_means_less_noise():
    medians = [LogitNormal(m)(100_000, keyed_generator(0)).median().item() for m in (-0.5, 0.0, 0.5)]
    assert medians == pytest.approx([1 / (1 + math.exp(-m)) for m in (-0.5, 0.0, 0.5)], abs=0.005)


def test_a_stratified_batch_has_one_time_in_every_stratum():
    t = Stratified()(64, keyed_generator(0))
    assert torch.equal((t * 64).floor().sort().values, torch.arange(64.0))
    assert not torch.equal(t.sort().values, t)
    torch.testing.assert_close(t.sort().values.diff(), torch.full((63,), 1 / 64))


@pytest.mark.parametrize("T_min", [0.02, 0.1, 0.2])
def test_the_low_noise_rows_of_a_stratified_batch_are_floor_or_ceil(T_min: float):
    counts = {int((Stratified()(256, keyed_generator(seed)) < T_min).sum()) for seed in range(200)}
    assert counts == {math.floor(256 * T_min), math.ceil(256 * T_min)}


@pytest.mark.slow
def test_every_row_of_a_stratified_batch_is_uniform():
    t = torch.stack([Stratified()(4, keyed_generator(seed)) for seed in range(4000)])
    assert t.mean(0).tolist() == pytest.approx([0.5] * 4, abs=0.02)
    assert t.var(0).tolist() == pytest.approx([1 / 12] * 4, abs=0.005)


def test_a_spread_that_is_no_spread_is_refused():
    with pytest.raises(ValueError, match="must be positive"):
        LogitNormal(0.0, 0.0)


def test_an_unknown_law_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="uniform, logit_normal, stratified, got 'beta'"):
        create_time_sampler("beta")


def test_every_law_has_a_config_of_its_name():
    assert {path.stem for path in CONFIGS} == set(TIME_SAMPLERS)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_a_config_creates_the_law_of_its_name(path: Path):
    options = OmegaConf.to_container(OmegaConf.load(path))
    target = options.pop("_target_")
    law = create_time_sampler(path.stem, **options)
    assert target == f"{type(law).__module__}.{type(law).__name__}"
    assert law == create_time_sampler(path.stem), "a config's defaults are the class's"
