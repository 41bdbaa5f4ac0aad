"""A verdict is data: what it judges and whether it asks for anything do not depend on its words."""

from __future__ import annotations

import json
import math

import pytest

from flowexp.records.verdict import Verdict


@pytest.mark.parametrize(
    ("state", "sentence", "calm"),
    [
        ("finding", "velocity deficit: 12 %", False),
        ("none", "no velocity deficit: 12 %", True),
        ("undecided", "no verdict on the velocity deficit: 12 %", True),
    ],
)
def test_a_verdict_is_a_sentence_where_it_is_read(state, sentence, calm):
    verdict = Verdict("velocity deficit", state, "12 %")
    assert (str(verdict), verdict.is_calm) == (sentence, calm)


def test_the_words_decide_nothing():
    assert not Verdict("x", "finding", head="no deficit").is_calm
    assert Verdict("x", "none", head="everything burns").is_calm


def test_a_verdict_survives_json_with_its_numbers():
    verdict = Verdict("lag", "undecided", "too few", "no verdict", {"lag": 0.02, "chance": math.nan})
    again = Verdict.of(json.loads(json.dumps(verdict.data())))
    assert again == verdict and again.numbers["lag"] == 0.02 and math.isnan(again.numbers["chance"])


def test_a_plain_sentence_is_a_finding_as_it_stands():
    verdict = Verdict.of("no state norm: 5.0")
    assert (str(verdict), verdict.state) == ("no state norm: 5.0", "finding")


def test_a_state_of_another_name_is_refused():
    with pytest.raises(ValueError, match="one of finding, none, undecided, got 'maybe'"):
        Verdict("x", "maybe")
