"""The replication report is what the recipes' rules and results make it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from experiments import replication
from experiments.verdict_picture import draw_verdicts, short
from flowexp.cli.recipes import find_recipes


def test_the_committed_report_is_that_of_the_rules_and_results_that_are_committed() -> None:
    assert replication.PAGE.read_text() == replication.report(replication.results())


def test_every_committed_verdict_follows_from_the_committed_tables_by_the_committed_rules() -> None:
    judged = {name: replication.judge_again(name) for name in replication.shipped_recipes()}
    kept = {name: replication.KEPT / name / "claims.json" for name in judged}
    assert judged == {name: json.loads(file.read_text()) if file.exists() else {} for name, file in kept.items()}
    assert sum(map(len, judged.values())) >= 79


def test_what_other_runs_say_of_a_claim_stands_with_its_verdict() -> None:
    claim = {"claim": "A", "state": "refuted", "evidence": "0.1 points", "beside": "2 points after 10,000 steps"}
    result = replication.Result("lcf/a", "About.", {"a": claim}, {}, None)
    page = replication.report([result])
    assert page.count("0.1 points; **beside it**: 2 points after 10,000 steps") == 2  # under the refuted, in the table
    assert replication.evidence_of({"evidence": "0.1 points"}) == "0.1 points"


def test_the_picture_has_every_decided_difference_on_the_side_of_its_verdict() -> None:
    claims = [claim for result in replication.results() for claim in result.claims.values()]
    decided = [claim for claim in claims if claim.get("effect")]
    for state, effect in ((claim["state"], claim["effect"]) for claim in decided):
        matters = effect["mean"] - 2 * effect["standard_error"] > 0 and effect["mean"] >= 1
        excluded = effect["mean"] + 2 * effect["standard_error"] < 1
        holds = {"supported": effect["claimed"], "refuted": not effect["claimed"]}.get(state)
        assert (matters, excluded) == (holds is True, holds is False)
    (axes,) = draw_verdicts(claims).axes
    assert len(axes.get_yticklabels()) == len(decided) > 60
    assert axes.get_yticklabels()[0].get_text() == short(decided[0]["claim"])


def test_results_are_taken_over_with_their_verdicts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(replication, "DOCS", tmp_path / "docs")
    monkeypatch.setattr(replication, "KEPT", tmp_path / "docs/results/replication")
    name = "lcf/fig04_probe_curve"
    for budget in ("smoke", "cpu"):
        folder = tmp_path / "results" / name / budget
        folder.mkdir(parents=True)
        end = {"state": "refuted", "evidence": f"0.1 points at {budget}"}
        (folder / "claims.json").write_text(json.dumps({"dip": end}))
        made = {"command": f"reproduce {budget}", "scale": "small", "minutes": 3.0, "seeds": 3, "commit": "abc"}
        (folder / "made.json").write_text(json.dumps(made))
        (folder / "protocol.json").write_text("{}")
        (folder / "table.md").write_text("| a |\n| --- |\n| 1 |\n")
    replication.take_over()
    result = replication.result_of(name, find_recipes()[name])
    assert result.claims["dip"]["evidence"] == "0.1 points at cpu"  # smoke decides nothing
    assert result.claims["lcf_removes_the_dip"]["state"] == "open"
    page = replication.report([result])
    assert "**refuted** | 0.1 points at cpu" in page and "`reproduce cpu`: 3 minutes" in page and "| 1 |" in page
