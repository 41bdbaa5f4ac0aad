"""`python -m flowexp.diagnose`: what it measures, of which run, and on which data."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowexp import diagnose
from flowexp.cli import launch
from flowexp.records.tables import read_csv

QUICK = ("callbacks.probe.levels=[0,0.2,0.8]", "callbacks.probe.taps=[1,2]", "callbacks.probe.max_train_images=64")


@pytest.mark.parametrize(
    ("arguments", "passed"),
    [
        (["probe", "run=x"], ["callbacks=probe_only", "run=x"]),
        (["ssc", "run=x"], ["callbacks=ssc_calibration", "run=x"]),
        (["run=x"], ["run=x"]),
        ([], []),
    ],
)
def test_a_first_word_chooses_what_is_measured(
    monkeypatch: pytest.MonkeyPatch, arguments: list[str], passed: list[str]
):
    seen: list[list[str]] = []
    monkeypatch.setattr(launch, "open_door", lambda command, given: seen.append([command, *given]) or 0)
    monkeypatch.setattr(sys, "argv", ["flowexp.diagnose", *arguments])
    assert diagnose.main() == 0 and seen == [["diagnose", *passed]]


@pytest.mark.slow
def test_a_run_is_probed_on_another_dataset_by_all_readings_under_a_named_protocol(
    in_process: Callable[..., int], capsys: pytest.CaptureFixture[str]
):
    chosen = ("callbacks.probe.protocol=ddae", "callbacks.probe.baselines=[pixels]", "data=digits", "run_dir=probed")
    assert in_process("diagnose", "callbacks=probe_only", "run=zoo:fashion_lcf", *QUICK, *chosen) == 0
    measured = json.loads(next(Path("probed/measurements/probe").glob("*.json")).read_text())
    paper = measured["protocol"]["readings"]["paper"]
    assert paper["protocol"] == "ddae" and paper["optimizer"] == "adam"
    assert measured["protocol"]["num_test"] == 360 and any("DDAE" in departure for departure in paper["departures"])
    numbers = measured["scalars"]
    for probe in ("probe", "probe_paper", "knn"):
        assert numbers[f"{probe}/dip"] == pytest.approx(numbers[f"{probe}/peak"] - numbers[f"{probe}/at_clean"])
    rows = next(Path("probed/measurements/probe").glob("*.csv")).read_text().split()
    assert len(rows) == 1 + 3 * 3 * 2 + 3  # readings x levels x taps, and the pixels by each reading
    assert "no verdict" in capsys.readouterr().out  # of probes of 15 updates
    assert json.loads(Path("probed/summary.json").read_text())["data"] == "digits as 1 x 28 x 28"


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_a_diagnosis_bears_the_name_of_its_run_and_finds_a_trained_networks_deficit(in_process: Callable[..., int]):
    levels = ("callbacks.velocity_norms.levels=[0.1,0.95]", "callbacks.velocity_norms.num_images=64")
    only = [f"callbacks.{name}=null" for name in ("noise_levels", "probe", "condition_number", "gradient_share",
            "jacobian", "cross_terms", "integration_lag")]  # fmt: skip
    assert in_process("diagnose", "run=zoo:fashion_fm", *levels, *only, "run_dir=found") == 0
    page = Path("found/report.html").read_text()
    assert "<h1>fashion_fm</h1>" in page and "Velocity deficit" in page
    summary = json.loads(Path("found/summary.json").read_text())
    assert any(verdict["about"] == "velocity deficit" for verdict in summary["verdicts"])
    (noisy,) = [
        row for row in read_csv(next(Path("found/measurements/velocity_norms").glob("*.csv"))) if row["t"] > 0.9
    ]
    assert noisy["deficit"] == pytest.approx(0.108, abs=0.02)  # as the exact field has it of 5,000 images


@pytest.mark.slow
@pytest.mark.usefixtures("fashion_mnist")
def test_a_dip_of_the_papers_probe_alone_is_called_what_it_is(in_process: Callable[..., int]):
    """The headline: it comes of features whose scale grows with t, and a converged probe does not have it."""
    small = ("callbacks.probe.levels=[0,0.4]", "callbacks.probe.taps=[4]", "callbacks.probe.max_train_images=2000",
             "callbacks.probe.max_test_images=1000", "callbacks.probe.baselines=[]",
             "callbacks.probe.readings=[converged,paper]")  # fmt: skip
    assert in_process("diagnose", "callbacks=probe_only", "run=zoo:fashion_fm", *small, "run_dir=found") == 0
    numbers = json.loads(Path("found/summary.json").read_text())["scalars"]
    assert numbers["probe_paper/dip"] > 0.03 and numbers["probe/dip"] < 0.02
    assert numbers["probe/at_clean"] > numbers["probe_paper/at_clean"] + 0.2
