from __future__ import annotations

import math
import statistics
from dataclasses import replace

import pytest
import torch

from flowexp.flow.interpolants import Linear
from flowexp.flow.profiles import create_profile
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.sampler import Sampler
from flowexp.flow.time import expand, progress
from flowexp.measuring.diagnostics import (
    ControlledSampler,
    Curve,
    LevelLag,
    LevelNorms,
    SSCProposal,
    calibrate_ssc,
    compare_samplers,
    integration_lag,
    ssc_controls,
    velocity_norms,
)
from flowexp.measuring.metrics import distance_of, moments_of

LEVELS = [0.05, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]


def norms_with(deficit):
    """Norms in which |v*| / |v| - 1 is a given function of t."""
    point = LevelNorms(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0, 0.001)
    return Curve(replace(point, t=t, ratio=1 / (1 + float(deficit(torch.tensor(t))))) for t in LEVELS)


def lag_with(effective):
    return Curve(
        LevelLag(t, 1.0, 1.0, 0.0, effective(t), effective(t) - t, 0.0, 0.0) for t in (0.0, 0.2, 0.4, 0.6, 0.8)
    )


@pytest.mark.parametrize("name", ["linear", "cosine", "quad_in", "quad_out"])
def test_a_deficit_that_is_a_profile_is_answered_by_it(name):
    profile = create_profile(name)
    found = calibrate_ssc(norms_with(lambda t: 0.4 * profile(progress(t))))
    assert (found.profile, found.s1, found.source) == (name, 1.0, "deficit")
    assert found.s0 == found.s0_deficit == pytest.approx(1 + 0.25 * 0.4)
    assert found.s0_full == pytest.approx(1.4) and found.misfit == pytest.approx(0, abs=1e-6)
    assert found.mean_scale == pytest.approx(1 + 0.1 * profile.area)


def test_the_default_share_gives_the_papers_scale_on_data_of_unit_scale(gaussian_field):
    """VD's s0 = 1.1 on latents; reference: |v*| / |v| = sqrt(2) at t = 1."""
    curve = velocity_norms(gaussian_field(Linear(), 1.0), Linear(), torch.randn(500, 1, 8, 8), [0.8, 0.9, 1.0], 0)
    found = calibrate_ssc(curve)
    assert found.s0_full == pytest.approx(2**0.5, rel=0.02)
    assert 1.08 < calibrate_ssc(norms_with(lambda t: (2**0.5 - 1) * t)).s0 < 1.12
    assert found.s0_error == pytest.approx(1, abs=0.02)  # and yet its field is right


def test_a_lag_is_answered_by_the_scale_that_would_have_undone_it():
    """Progress made = progress due / (1 + a x the profile's mean so far); for the linear one that mean is 1 - p / 2."""

    def effective(t):
        p = progress(t)
        return progress(p / (1 + 0.08 * (1 - p / 2)))

    found = calibrate_ssc(norms_with(lambda t: 0.4 * t), lag_with(effective))
    assert (found.profile, found.source) == ("linear", "lag")
    assert found.s0 == found.s0_lag == pytest.approx(1.08, rel=1e-4)


def test_a_sampler_on_or_ahead_of_schedule_needs_no_correction_whatever_the_deficit():
    for effective in (lambda t: t, lambda t: 0.95 * t):
        found = calibrate_ssc(norms_with(lambda t: 0.4 * t), lag_with(effective))
        assert (found.s0, found.s1, found.source) == (1.0, 1.0, "none") and found.s0_deficit > 1.05


def test_a_bias_that_exact_marginals_show_too_is_no_lag():
    curve = lag_with(lambda t: t + 0.02 * progress(t))
    biased = Curve(
        replace(p, t_effective=p.t_effective - 0.05, lag=p.lag - 0.05, lag_marginal=-0.05) for p in curve if p.t > 0.1
    )
    norms = norms_with(lambda t: 0.4 * t)
    assert calibrate_ssc(norms, biased).s0 == pytest.approx(calibrate_ssc(norms, curve).s0, rel=1e-6)


def test_a_proposal_has_a_ceiling_and_needs_the_noise_half():
    assert calibrate_ssc(norms_with(lambda t: 9.0 * t)).s0 == 1.3
    with pytest.raises(ValueError, match=r"at least 2 levels with t >= 0\.5"):
        calibrate_ssc(Curve(norms_with(lambda t: t).points[:2]))
    with pytest.raises(ValueError, match="a lag is read at levels between"):
        calibrate_ssc(norms_with(lambda t: t), Curve(lag_with(lambda t: t).points[:1]))


def test_controls_are_every_scale_with_every_solver_and_number_of_steps():
    base = Sampler("dopri5", solver_options={"rtol": 1e-2}, guidance_scale=1.5, final_jump=0.02)
    proposal = calibrate_ssc(norms_with(lambda t: 0.4 * create_profile("quad_in")(progress(t))))
    found = ssc_controls(base, proposal)
    scales = ["plain", "vd", "late", *(f"constant_{s}" for s in (1.02, 1.04, 1.05, 1.06, 1.08)), "proposal", "mean"]
    assert list(found) == [
        ControlledSampler(solver, n, s) for solver in ("euler", "euler_maruyama") for n in (50, 250) for s in scales
    ]
    for key, sampler in found.items():
        assert (sampler.integrator.name, sampler.num_steps) == (key.solver, key.num_steps)
        assert (sampler.guidance_scale, sampler.final_jump) == (1.5, 0.02)
        assert sampler.corrected == (key.scale != "plain")
        assert not found[key.plain()].corrected
    settings = {str(key): (s.s0, s.s1, s.profile) for key, s in found.items()}
    assert settings["euler-50-vd"] == (1.1, 1.0, "linear") and settings["euler-50-late"] == (1.0, 1.1, "linear")
    assert settings["euler-50-proposal"] == (proposal.s0, 1.0, "quad_in")
    assert settings["euler-50-mean"][:2] == (proposal.mean_scale, proposal.mean_scale)


@pytest.fixture
def features():
    base = torch.randn(400, 6)
    return {"plain": base, "same": base.clone(), "near": 0.95 * base + 0.02, "far": 1.2 * base + 0.3}


def test_paired_intervals_tell_better_from_worse_and_a_twin_from_neither(features):
    reference = moments_of(0.9 * torch.randn(5000, 6))
    scores = {s.sampler: s for s in compare_samplers(features, reference, "plain", num_resamples=60)}
    for name, score in scores.items():
        assert score.distance == pytest.approx(distance_of(moments_of(features[name]), reference))
        assert score.difference == pytest.approx(score.distance - scores["plain"].distance)
        assert score.low <= score.high
    twin = scores["same"]
    assert (twin.difference, twin.low, twin.high, twin.better) == (0, 0, 0, False)
    assert scores["near"].better and scores["near"].low < scores["near"].difference < scores["near"].high < 0
    assert scores["far"].low > 0 and not scores["far"].better


def test_pairing_makes_the_interval_narrower(features):
    reference = moments_of(0.9 * torch.randn(5000, 6))
    shuffled = {**features, "near": features["near"][torch.randperm(400)]}
    widths = []
    for own in (features, shuffled):
        score = next(s for s in compare_samplers(own, reference, "plain", num_resamples=60) if s.sampler == "near")
        widths.append(score.high - score.low)
    assert widths[0] < 0.5 * widths[1]


def test_a_baseline_may_depend_on_the_sampler_and_pairs_are_complete(features):
    reference = moments_of(torch.randn(100, 6))
    plain, vd, other = (ControlledSampler(*key) for key in (("a", 50, "plain"), ("a", 50, "vd"), ("b", 50, "plain")))
    named = {plain: features["plain"], vd: features["near"], other: features["far"]}
    found = compare_samplers(named, reference, ControlledSampler.plain, num_resamples=3)
    scores = {score.sampler: score for score in found}
    assert scores[other].difference == 0 and scores[vd].difference != 0
    with pytest.raises(ValueError, match="no features of the baseline x, only of plain"):
        compare_samplers(features, reference, "x")
    with pytest.raises(ValueError, match=r"equally many samples of every sampler, got \[10, 400\]"):
        compare_samplers({**features, "near": features["near"][:10]}, reference, "plain")


class ExactField:
    """The velocity of data N(1.3, 0.5^2), shortened by 1 + slow t: exact for slow = 0."""

    mean, std = 1.3, 0.5

    def __init__(self, slow: float = 0.0) -> None:
        self.slow = slow

    def __call__(self, x, t, label=None):
        noise, data = expand(t, x), expand(progress(t), x)
        gain = (noise - data * self.std**2) / (data**2 * self.std**2 + noise**2)
        return (gain * (x - data * self.mean) - self.mean) / (1 + self.slow * noise)

    def null_condition(self, label):
        return None


def proposal_for(slow: float, seed: int, num: int = 400) -> SSCProposal:
    images = ExactField.mean + ExactField.std * torch.randn(5 * num, 1, 4, 4, generator=keyed_generator(seed, 99))
    field = ExactField(slow)
    lag = integration_lag(Sampler("euler", 25), field, Linear(), images, num, seed, num_levels=8)
    return calibrate_ssc(velocity_norms(field, Linear(), images[:200], [0.6, 0.8, 0.99], seed), lag)


def test_no_correction_is_proposed_to_an_exact_field():
    """Its slope scatters about 1 by its standard error; without one, every second field got a correction."""
    found = [proposal_for(0.0, seed) for seed in range(4)]
    assert [proposal.source for proposal in found] == ["none"] * 4 and all(p.s0 == 1 for p in found)
    errors = [proposal.s0_se for proposal in found]
    assert max(abs(p.s0_lag - 1) / p.s0_se for p in found) < 3
    assert min(errors) > 0.01 and max(errors) < 0.06


@pytest.mark.slow
def test_the_error_of_a_scale_is_the_scatter_over_seeds():
    found = [proposal_for(0.0, seed, num=100) for seed in range(12)]
    scatter = statistics.stdev(proposal.s0_lag for proposal in found)
    assert statistics.mean(proposal.s0_se for proposal in found) == pytest.approx(scatter, rel=0.6)


def test_a_correction_that_is_due_is_proposed():
    assert proposal_for(0.2, 0).source == "lag" and proposal_for(0.2, 0).s0 > 1.05


def test_the_error_of_a_scale_is_that_of_the_slopes_of_the_resamples():
    exact = calibrate_ssc(norms_with(lambda t: 0.1 * t), lag_with(lambda t: t))
    assert exact.s0_se is None and exact.source == "none"
    resampled = Curve(
        replace(p, null_lags=(0.01 * progress(p.t), -0.01 * progress(p.t))) for p in lag_with(lambda t: t)
    )
    slopes = [
        calibrate_ssc(norms_with(lambda t: 0.1 * t), lag_with(lambda t, s=s: t + s * 0.01 * progress(t))).s0_lag
        for s in (1, -1)
    ]
    found = calibrate_ssc(norms_with(lambda t: 0.1 * t), resampled).s0_se
    assert found == pytest.approx(2**0.5 * statistics.stdev(slopes))


@pytest.mark.parametrize(
    ("error", "source"), [(0.0, "deficit"), (0.01, "deficit"), (0.2, "none"), (math.nan, "deficit")]
)
def test_a_deficit_within_its_error_proposes_nothing(error, source):
    curve = Curve(replace(point, ratio_se=error) for point in norms_with(lambda t: 0.4 * t))
    assert calibrate_ssc(curve).source == source
