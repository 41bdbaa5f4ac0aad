"""A verdict is silent where nothing can be said, and names the reason."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from flowexp.measuring.diagnostics import (
    ControlledSampler,
    Curve,
    LevelCondition,
    LevelGradient,
    LevelJacobian,
    LevelLag,
    LevelNorms,
    ProbeCurve,
    SamplerScore,
    SSCProposal,
    verdict,
)
from flowexp.measuring.diagnostics.convergence import ProbeFit
from flowexp.measuring.diagnostics.verdict import ssc_verdict

NORMS = LevelNorms(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.9, 1.0, 0.001)
LAG = LevelLag(0.5, 3.0, 2.0, 0.5, 0.5, 0.0, 0.001, 0.1)
JACOBIAN = LevelJacobian(0.2, 1.0, 1.0, 0.05, 0.05, 1.0, 3.0, 0.1)
CONDITION = LevelCondition(0.02, 50.0, 50.0, 10.0, 9.0, 1.0, 1.0, 1.0, 1.0)
NAN = float("nan")
CONVERGED, SHORT = ProbeFit(0.8, 0.02, 0.5), ProbeFit(0.59, 0.35, 10.0)


def sentences(*curves, **named):
    return [str(found) for found in verdict(*curves, **named)]


def ssc_sentences(proposal, scores):
    return [str(found) for found in ssc_verdict(proposal, scores)]


def probe(*shares, num_test=10_000, levels=(0.0, 0.1, 0.5), fits=None, **about):
    accuracy = {(t, 8): share for t, share in zip(levels, shares, strict=True)}
    return ProbeCurve(
        accuracy, num_test, **{"num_classes": 10, "fits": dict.fromkeys(accuracy, fits) if fits else {}} | about
    )


@pytest.mark.parametrize(
    ("curve", "sentence"),
    [
        (probe(0.119, 0.11, 0.10, num_test=360), "no verdict: accuracy is at chance (11.9 % of 10 classes)"),
        (probe(0.08, 0.119, 0.10, num_test=360), "no verdict: accuracy is at chance (11.9 % of 10 classes)"),
        (probe(0.3, 0.31, 0.3, num_test=1000, chance=0.3), "no verdict: accuracy is at chance (31.0 % of 10 classes)"),
        (probe(0.6, 0.7, 0.5, num_test=20), "no verdict: 20 test images are too few for a standard error"),
        (probe(0.6, 0.7, 0.5, num_test=None), "no verdict: how many test images were scored is not known, and so no "
         "standard error"),
        (probe(0.6, NAN, 0.5), "no verdict: an accuracy is not finite"),
        (probe(0.6, levels=(0.1,)), "no verdict: a dip needs a level of at most 0.1 and others above it, got 0.1"),
        (probe(0.6, 0.7, levels=(0.3, 0.5)), "no verdict: a dip needs a level of at most 0.1 and others above it, got "
         "0.3, 0.5"),
        (probe(0.6, 0.61, 0.5, num_test=100), "no verdict: with 100 test images a dip of 13.8 points (2 standard "
         "errors) would not show, and here it is 1.0 points"),
        (probe(1.0, 1.0, 0.9, num_test=40), "no verdict: with 40 test images a dip of 10.0 points (2 standard "
         "errors) would not show, and here it is 0.0 points"),
    ],
)  # fmt: skip
def test_a_dip_is_not_judged_where_it_could_not_be_seen(curve, sentence):
    assert sentences(curve) == [sentence]


def test_a_probe_that_has_not_converged_has_no_verdict_and_says_by_what():
    curve = probe(0.55, 0.63, 0.5, fits=CONVERGED)
    assert sentences(curve)[0].startswith("low-noise pathology")
    short = replace(curve, fits=curve.fits | {(0.1, 8): SHORT})
    assert sentences(short) == [
        "no verdict: the linear probe has not converged at 1 of 3 places, so that its curve shows how large features "
        "are, too: at t = 0.1, block 8, 35 % of its gradient are left (10.0 times what chance explains, in square) at "
        "a train accuracy of 59.0 %; raise epochs, lr or max_train_images"
    ]
    of_logistic_regression = replace(SHORT, over_chance=None)
    (sentence,) = sentences(replace(curve, fits=curve.fits | {(0.1, 8): of_logistic_regression}))
    assert sentence.endswith("35 % of its gradient are left at a train accuracy of 59.0 %; raise max_train_images")


def test_chance_comes_before_convergence():
    assert "at chance" in sentences(probe(0.119, 0.11, 0.1, num_test=360, fits=SHORT))[0]


def test_an_accuracy_just_above_chance_is_judged():
    assert sentences(probe(0.16, 0.15, 0.14, num_test=3600))[0].startswith("no low-noise pathology")


@pytest.mark.parametrize("cosine", [0.0, 0.02, -0.9, NAN])
def test_a_velocity_that_does_not_know_its_target_has_no_deficit(cosine):
    untrained = replace(NORMS, velocity=0.0, ratio=0.0, deficit=1.0, cosine=cosine, best_scale=1.0)
    (sentence,) = sentences(norms=Curve([replace(untrained, t=0.05), replace(untrained, t=0.95)]))
    assert sentence.startswith("no verdict on the velocity deficit: the network's velocity does not know its target")


def test_a_level_where_the_velocity_knows_nothing_silences_its_own_end_alone():
    curve = Curve([replace(NORMS, t=0.05, cosine=0.01, best_scale=NAN), replace(NORMS, t=0.95, deficit=0.12)])
    noise, data, whose = sentences(norms=curve)
    assert noise.startswith("velocity deficit: 12 %")
    assert data.startswith("no verdict on the velocity deficit at the data end: there v does not know its target")
    assert whose.startswith("no verdict on whose deficit it is")


@pytest.mark.parametrize(
    ("deficit", "error", "start"),
    [
        (0.12, 0.001, "velocity deficit: 12 %"),
        (0.12, 0.02, "velocity deficit: 12 %"),
        (0.12, 0.06, "no verdict on the velocity deficit: 12 % at the noise end"),
        (0.01, 0.001, "no velocity deficit: 1 %"),
        (0.01, 0.03, "no verdict on the velocity deficit"),
        (0.12, NAN, "no verdict on the velocity deficit"),
    ],
)
def test_a_deficit_is_judged_as_far_as_its_standard_error_allows(deficit, error, start):
    curve = Curve([replace(NORMS, t=0.05), replace(NORMS, t=0.95, deficit=deficit, ratio_se=error)])
    assert sentences(norms=curve)[0].startswith(start)


@pytest.mark.parametrize("error", [0.02, NAN])
def test_the_optimal_field_is_not_named_where_the_best_scale_is_hardly_known(error):
    found = sentences(norms=Curve([NORMS, replace(NORMS, t=0.9, best_scale_se=error)]))
    assert found[-1].startswith("no verdict on whose deficit it is")


@pytest.mark.parametrize(
    ("point", "start"),
    [
        (replace(LAG, lag=0.03, lag_marginal=0.08), "no verdict on the integration lag: it is 0.050 in t, and so few"),
        (replace(LAG, lag=0.25), "no verdict on the integration lag: at t = 0.5 the states look like no level within"),
        (replace(LAG, lag=NAN), "no verdict on the integration lag: a lag is not finite"),
        (replace(LAG, lag=0.2, lag_marginal=0.08), "integration lag: up to 0.120 in t behind schedule"),
        (replace(LAG, lag=0.02, lag_marginal=0.02), "no integration lag"),
    ],
)
def test_a_lag_is_judged_beyond_the_chance_of_its_samples(point, start):
    assert sentences(lag=Curve([point]))[0].startswith(start)


@pytest.mark.parametrize(
    ("low", "start"),
    [
        ({"g_noise": 2.0, "g_sem": 0.8}, "Jacobian reallocation to noise directions"),
        ({"g_noise": 2.0, "g_sem": 2.0}, "no Jacobian reallocation"),
        ({"g_noise": 1.2, "g_sem": 1.0}, "no verdict on a Jacobian reallocation: from t = 0.2 to 0.01"),
        ({"g_noise": 2.0, "g_sem": 0.8, "g_noise_se": 0.9}, "no verdict on a Jacobian reallocation: from"),
        ({"g_noise": 2.0, "g_sem": 0.8, "g_sem_se": NAN, "g_noise_se": NAN}, "no verdict on a Jacobian"),
        ({"g_noise": 0.0}, "no verdict on a Jacobian reallocation: a gain is 0 or not finite"),
        ({"g_sem": NAN}, "no verdict on a Jacobian reallocation: a gain is 0 or not finite"),
    ],
)
def test_a_reallocation_is_judged_as_far_as_the_gains_are_known(low, start):
    assert sentences(jacobian=Curve([JACOBIAN, replace(JACOBIAN, t=0.01, **low)]))[0].startswith(start)


def test_numbers_that_are_not_finite_have_no_verdict():
    broken = replace(CONDITION, noise_network=NAN)
    assert sentences(condition=Curve([broken]))[0].startswith("no verdict on the condition number")
    nothing = LevelGradient(0.05, 1.0, 0.0, NAN, NAN, 0.0)
    assert sentences(gradient=Curve([nothing])) == ["no verdict on the gradient: its norm is 0 or not finite"]


@pytest.mark.parametrize(("low", "start"), [(-4.0, "no verdict on SSC"), (-0.4, "no scale is surely better")])
def test_scales_are_not_called_no_better_where_no_difference_could_show(low, start):
    proposal = SSCProposal(1.08, 1.0, "quad_in", "lag", 1.1, 1.4, 1.08, 1.002, 0.1, 0.016)
    plain = SamplerScore(ControlledSampler("euler", 50, "plain"), 9.0, 0.0, 0.0, 0.0, False)
    scores = [plain, SamplerScore(ControlledSampler("euler", 50, "vd"), 9.0, 0.0, low, -low, False)]
    assert ssc_sentences(proposal, scores)[1].startswith(start)


def test_a_proposal_bears_its_error_and_one_within_it_is_none():
    proposal = SSCProposal(1.08, 1.0, "quad_in", "lag", 1.1, 1.4, 1.08, 1.002, 0.1, 0.016)
    assert "s0 = 1.080 (standard error 0.016)" in ssc_sentences(proposal, [])[0]
    chance = replace(proposal, s0=1.0, source="none", s0_lag=1.028)
    assert ssc_sentences(chance, [])[0] == (
        "SSC proposal: none; the 1.028 that was measured is within chance of 1 (standard error 0.016)"
    )
    ahead = replace(chance, s0_lag=0.97)
    assert ssc_sentences(ahead, [])[0] == "SSC proposal: none; states are not behind their schedule"


def test_a_margin_is_never_nothing():
    """All right and all wrong have a standard error of 0, however few the images."""
    assert sentences(probe(1.0, 1.0, 1.0, num_test=360))[0].endswith("within 2 standard errors (1.1 points)")
    assert math.isfinite(probe(1.0, 1.0, 1.0, num_test=360).dip_se)
