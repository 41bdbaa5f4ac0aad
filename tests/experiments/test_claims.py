"""Claims end by rules: what differences over seeds support, refute, or leave open, and how seeds become one line."""

from __future__ import annotations

import pytest

from flowexp.cli.recipes import Judgement, by_seed, decide, find_recipes, judge_difference, over_seeds, published
from flowexp.cli.recipes.lines import progress
from flowexp.cli.recipes.recipe import read_yaml


@pytest.mark.parametrize(
    ("values", "state"),
    [
        ([0.05, 0.06, 0.055], "supported"),
        ([0.002, 0.003, 0.0025], "refuted"),  # surely above 0, and less than counts
        ([-0.02, -0.03, -0.025], "refuted"),
        ([-0.05, 0.08, 0.05], "not testable at this scale"),  # an interval that holds both
        ([0.05, 0.06], "not testable at this scale"),  # two seeds
        ([0.05, float("nan"), 0.06], "not testable at this scale"),
    ],
)
def test_a_difference_ends_as_its_interval_says(values: list[float], state: str) -> None:
    assert judge_difference(values, matters=0.01, unit=" points", scale=100).state == state


def test_the_evidence_has_the_numbers() -> None:
    judgement = judge_difference([0.05, 0.06, 0.07], 0.01, " points", 100)
    assert judgement.evidence == "6 points (standard error 0.58, 3 seeds)"


def test_every_claim_needs_a_judgement_and_every_judgement_a_claim() -> None:
    claims = {"a": {"claim": "A", "rule": "R"}, "b": {"claim": "B", "not_testable": "it needs four GPUs"}}
    ended = decide(claims, {"a": Judgement("refuted", "0 points")})
    assert [(claim.state, claim.evidence) for claim in ended] == [
        ("refuted", "0 points"),
        ("not testable at this scale", "because it needs four GPUs"),
    ]
    for judgements in ({}, {"a": ended[0], "c": ended[0]}):
        with pytest.raises(ValueError, match="need a rule in the yaml and a judgement"):
            decide(claims, judgements)  # type: ignore[arg-type]


def test_rows_of_seeds_become_one_with_their_spread() -> None:
    rows = [{"t": 0.1, "seed": seed, "accuracy": value} for seed, value in enumerate((0.5, 0.6, 0.7))]
    (row,) = over_seeds(rows, ["t"], ["accuracy"])
    assert row == pytest.approx({"t": 0.1, "accuracy": 0.6, "accuracy_low": 0.5, "accuracy_high": 0.7, "seeds": 3})
    (alone,) = over_seeds(rows[:1], ["t"], ["accuracy"])
    assert alone["accuracy_low"] == alone["accuracy_high"] == 0.5
    assert by_seed(rows, "accuracy", t=0.1) == {0: 0.5, 1: 0.6, 2: 0.7}


def test_the_time_left_is_that_of_the_lines_before() -> None:
    assert progress(0, 4, 0) == "line 1 of 4" and progress(1, 4, 300) == "line 2 of 4, about 15 minutes left"


def test_published_numbers_are_found_by_paper_and_item() -> None:
    assert published("vd", "fig4")["fid"]["ssc_nfe50"] == 7.58 and published("lcf", "fig11")["fid"]["lcf"] == 12.19


@pytest.mark.parametrize("name", find_recipes())
def test_every_claim_says_what_decides_it(name: str) -> None:
    for claim in read_yaml(find_recipes()[name]).get("claims", {}).values():
        assert claim.claim and (claim.get("rule") or claim.get("not_testable"))
