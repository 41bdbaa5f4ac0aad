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
from flowexp.measuring.diagnostics.verdict import readings_verdict, ssc_verdict

NORMS = LevelNorms(0.5, 1.0, 1.0, 1.0, 1.0, 1.0, 0.0, 1.0, 0.9, 1.0, 0.001)
LAG = LevelLag(0.5, 3.0, 2.0, 0.5, 0.5, 0.0, 0.001, 0.1)
JACOBIAN = LevelJacobian(0.2, 1.0, 1.0, 0.1, 0.1, 1.0, 3.0, 0.1)


def sentences(*curves, **named):
    return [str(found) for found in verdict(*curves, **named)]


def ssc_sentences(proposal, scores):
    return [str(found) for found in ssc_verdict(proposal, scores)]


def probe(*shares, num_test=10_000):
    accuracy = {(t, 8): share for t, share in zip((0.0, 0.02, 0.04, 0.1, 0.5), shares, strict=True)}
    return ProbeCurve(accuracy, num_test, num_classes=10)


def test_a_dip_beyond_the_standard_error_is_the_pathology():
    (sentence,) = sentences(probe(0.729, 0.735, 0.742, 0.76, 0.4))
    assert sentence == (
        "low-noise pathology: dip of 3.1 points (standard error 0.6 points), onset t = 0.04; "
        "peak 76.0 % at t = 0.1, block 8"
    )


def test_the_onset_is_where_the_fall_exceeds_the_standard_error():
    assert "onset t = 0.02" in sentences(probe(0.70, 0.73, 0.755, 0.76, 0.4))[0]


def test_a_dip_within_the_standard_error_is_none():
    assert sentences(probe(0.755, 0.755, 0.755, 0.76, 0.4)) == [
        "no low-noise pathology: dip of 0.5 points from the peak at t = 0.1, within 2 standard errors (1.2 points)"
    ]
    assert sentences(probe(0.8, 0.7, 0.7, 0.7, 0.4))[0].startswith("no low-noise pathology: dip of 0.0 points")


def test_the_standard_error_of_a_dip_is_that_of_a_difference_of_shares():
    curve = probe(0.5, 0.6, 0.7, 0.8, 0.1, num_test=100)
    assert curve.dip_se == math.sqrt((0.8 * 0.2 + 0.5 * 0.5) / 100)
    assert probe(0.5, 0.6, 0.7, 0.8, 0.1, num_test=None).dip_se is None


def test_a_deficit_is_told_at_both_ends_and_apart_from_an_underestimate():
    ends = [replace(NORMS, t=0.05, deficit=0.01), replace(NORMS, t=0.95, deficit=0.12)]
    assert sentences(norms=Curve(ends)) == [
        "velocity deficit: 12 % at the noise end (t = 0.95, cosine 0.90)",
        "no velocity deficit: 1 % at the data end (t = 0.05, cosine 0.90)",
        "the deficit is an optimal field's: at no level has another scale less velocity error",
    ]
    short = Curve([*ends, replace(NORMS, t=0.5, best_scale=1.04)])
    assert sentences(norms=short)[2] == "the network underestimates: the least velocity error is at 1.040 v (t = 0.5)"
    untrained = Curve([*short, replace(NORMS, t=0.1, best_scale=0.7)])  # such as LCF below T_min
    assert sentences(norms=untrained)[2:] == [
        "the network underestimates: the least velocity error is at 1.040 v (t = 0.5)",
        "the network overestimates: the least velocity error is at 0.700 v (t = 0.1)",
    ]
    unsure = Curve([replace(NORMS, best_scale=1.04, best_scale_se=0.02)])
    assert sentences(norms=unsure)[2] == (
        "no verdict on whose deficit it is: the scale with the least velocity error is known to 4.0 % only; "
        "raise num_images"
    )


def test_a_lag_has_a_side():
    late, early = replace(LAG, lag=0.03), replace(LAG, t=0.2, lag=-0.05)
    assert sentences(lag=Curve([LAG, late])) == [
        "integration lag: up to 0.029 in t behind schedule, at t = 0.5; FLD 3 against 2 of the exact marginal"
    ]
    assert "0.051 in t ahead of schedule, at t = 0.2" in sentences(lag=Curve([late, early]))[0]
    assert sentences(lag=Curve([replace(late, lag_marginal=0.02)]))[0].startswith("no integration lag")
    assert sentences(lag=Curve([LAG])) == [
        "no integration lag: states keep to their level within 0.001 in t, chance is 0.001"
    ]


def test_a_jacobian_is_reallocated_where_noise_gains_and_semantics_do_not():
    moved = Curve([JACOBIAN, replace(JACOBIAN, t=0.01, g_noise=2.0, g_sem=0.8)])
    both = Curve([JACOBIAN, replace(JACOBIAN, t=0.01, g_noise=2.0, g_sem=2.0)])
    assert sentences(jacobian=moved) == [
        "Jacobian reallocation to noise directions: from t = 0.2 to 0.01 G_noise is multiplied by 2, G_sem by 0.8"
    ]
    assert sentences(jacobian=both)[0].startswith("no Jacobian reallocation")
    assert sentences(jacobian=Curve([JACOBIAN])) == []


def test_condition_number_and_gradient_are_told_beside_what_they_are_measured_by():
    point = LevelCondition(0.02, 50.0, 50.0, 10.0, 9.0, 1.0, 1.0, 1.0, 1.0)
    assert sentences(condition=Curve([replace(point, t=0.0, noise_exact=math.inf), point])) == [
        "condition number: the target demands 50 at t = 0.02, the network's velocity has 10 (20 %)"
    ]
    low, high = LevelGradient(0.05, 1.0, 3.0, 0.75, 0.8, 4.0), LevelGradient(0.5, 1.0, 1.0, 0.25, 0.2, 4.0)
    assert sentences(gradient=Curve([low, high])) == [
        "gradient: 75 % of the gradient norms come from t < 0.1, 50 % of the levels"
    ]
    assert sentences() == []


def test_a_proposal_is_told_beside_what_its_controls_reach():
    proposal = SSCProposal(1.08, 1.0, "quad_in", "lag", 1.1, 1.4, 1.08, 1.002, 0.1)
    names = {"plain": False, "late": True, "constant_1.05": True, "proposal": True, "mean": False}
    scores = [
        SamplerScore(ControlledSampler("euler", 50, name), 9.0, -1.0, -2.0, -0.5, better)
        for name, better in names.items()
    ]
    assert ssc_sentences(proposal, scores) == [
        "SSC proposal: s0 = 1.080, s1 = 1, profile quad_in, from the lag; the least velocity error at the noise end is "
        "at 1.002",
        "SSC beside its controls: surely better than no SSC are the proposal in 1 of 1, late injection in 1 of 1, "
        "constant 1.05 in 1 of 1, the proposal's mean in 0 of 1",
    ]
    none = ssc_sentences(replace(proposal, s0=1.0, source="none"), scores)
    assert none[0] == "SSC proposal: none; states are not behind their schedule"
    assert "proposal in" not in none[1] and "mean" not in none[1]
    unsure = [replace(score, better=False) for score in scores]
    assert ssc_sentences(proposal, unsure)[1] == (
        "no scale is surely better than no SSC: neither the proposal nor a control, in 1 comparisons of each"
    )


def test_a_verdict_bears_its_state_and_the_numbers_that_decide_it():
    (pathology,) = verdict(probe(0.729, 0.735, 0.742, 0.76, 0.4))
    assert (pathology.about, pathology.state) == ("low-noise pathology", "finding")
    assert math.isclose(pathology.numbers["dip"], 0.031) and pathology.numbers["onset"] == 0.04
    (none,) = verdict(probe(0.755, 0.755, 0.755, 0.76, 0.4))
    assert (none.about, none.state) == ("low-noise pathology", "none")
    states = [found.state for found in verdict(norms=Curve([NORMS, replace(NORMS, t=0.95, deficit=0.12)]))]
    assert states == ["finding", "none", "none"]  # at the noise end, at the data end, and the optimal field's
    (lag,) = verdict(lag=Curve([replace(LAG, lag=0.25)]))
    assert (lag.state, lag.numbers["t"]) == ("undecided", 0.5)


# --- one set of features by several readings -------------------------------------------------------------------------


def read(clean, peak, fit=None):
    cells = {(0.0, 4): clean, (0.1, 4): peak, (0.5, 4): 0.4}
    return ProbeCurve(cells, 10_000, num_classes=10, fits=dict.fromkeys(cells, fit) if fit else {})


DONE, SHORT = ProbeFit(0.8, 0.001, None, 1e-4), ProbeFit(0.5, 0.6, 10.0)


def test_a_dip_of_the_unconverged_probe_alone_is_called_that():
    curves = {"converged": read(0.797, 0.797, DONE), "paper": read(0.517, 0.583, SHORT), "knn": read(0.69, 0.70)}
    main, paper, knn = readings_verdict(curves)
    assert (main.about, main.state) == ("low-noise pathology", "none")
    assert paper.is_calm and str(paper).startswith(
        "a dip of the unconverged probe alone: 6.6 points in the paper's probe"
    )
    assert "0.0 points in the converged one" in str(paper)
    assert str(knn).endswith("(nearest neighbours)")


@pytest.mark.parametrize(
    ("converged", "paper"),
    [
        (read(0.60, 0.70, DONE), read(0.517, 0.583, SHORT)),  # the features have the dip as well
        (read(0.70, 0.70, DONE), read(0.60, 0.70, ProbeFit(0.7, 0.01, 1.0))),  # that probe has converged
        (read(0.70, 0.70, DONE), read(0.58, 0.581, SHORT)),  # no dip there either
    ],
)
def test_no_other_pair_of_readings_is(converged, paper):
    verdicts = readings_verdict({"converged": converged, "paper": paper})
    assert not any("unconverged probe alone" in str(verdict) for verdict in verdicts)
    assert str(verdicts[1]).endswith("(the paper's probe)")
