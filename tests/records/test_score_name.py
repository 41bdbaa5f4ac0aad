"""A score's key says which score of which network it is, both ways."""

from __future__ import annotations

import pytest

from flowexp.measuring.metrics.registry import METRICS
from flowexp.records.score_name import ScoreName

SCORES = [score for metric in METRICS.values() for score in metric.gives or ()]


@pytest.mark.parametrize("encoder", ["inception", "efficientnet_lite"])
@pytest.mark.parametrize("score", SCORES)
def test_a_key_gives_its_name_back(score: str, encoder: str):
    name = ScoreName(score, encoder)
    assert ScoreName.of(str(name)) == name


def test_only_inceptions_scores_bear_the_papers_names():
    names = [ScoreName(score, encoder) for encoder in ("inception", "x") for score in ("frechet", "kid", "sfid")]
    assert [str(name) for name in names] == ["fid", "kid", "sfid", "frechet/x", "mmd/x", "sfid/x"]
