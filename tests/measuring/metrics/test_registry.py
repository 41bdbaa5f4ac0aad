"""A metric of one's own is one file: it is found by name, gets what it asked for, and has its options on the card."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowexp.measuring.metrics import METRICS, MetricPlan, Needs, metric

sys.path.append(str(Path(__file__).parent))
from metric_processes import OPTIONS, collect

SPREAD = """
from flowexp.measuring.metrics import Needs, Work, metric

@metric("spread", Needs(features=True), options=lambda plan: {"power": 2}, fewest=lambda plan: 5)
def spread(work: Work) -> dict[str, float]:
    return {"spread": float(work.sampled().square().mean())}
"""


@pytest.fixture
def own_file(tmp_path, monkeypatch):
    """The folder with `own_metric.py`, forgotten afterwards."""
    (tmp_path / "own_metric.py").write_text(SPREAD)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    METRICS.pop("spread", None)
    sys.modules.pop("own_metric", None)


def test_a_metric_in_a_file_of_ones_own_is_measured_beside_the_others(own_file):
    plan = MetricPlan(("frechet", "own_metric.spread"), **OPTIONS)
    assert plan.metrics == ("frechet", "spread") and plan.protocol()["spread"] == {"power": 2}
    samples = collect(40, 1, plan.samples)
    found = plan.compute(samples, collect(40, 0, plan.reference))
    assert found["spread"] == {"spread": pytest.approx(float(samples.features.square().mean()))}
    with pytest.raises(ValueError, match="spread needs at least 5, got 4 samples"):
        plan.check(4, ("features",))


def test_its_random_stream_does_not_depend_on_what_else_was_registered(own_file):
    MetricPlan(("own_metric.spread",))
    alone = METRICS["spread"].stream
    assert alone > 1000 and alone not in {one.stream for name, one in METRICS.items() if name != "spread"}
    assert [one.stream for one in METRICS.values()][:8] == [*range(8)]  # numbers of before keep their subsets


@pytest.mark.parametrize("name", ["fid", "own_metric.other", "metric_processes.frechet"])
def test_a_name_that_is_no_metric_lists_those_that_are(own_file, name):
    with pytest.raises(ValueError, match=rf"metrics must be some of frechet, sfid, .*, got {name}"):
        MetricPlan((name,))


def test_a_file_that_is_not_there_is_named():
    with pytest.raises(ValueError, match=r"the metric nowhere\.spread could not be imported"):
        MetricPlan(("nowhere.spread",))


def test_a_name_that_is_taken_is_not_taken_over():
    with pytest.raises(ValueError, match=r"there is a metric frechet already, of flowexp\.measuring\.metrics"):
        metric("frechet", Needs(features=True))(lambda work: {"frechet": 0.0})
