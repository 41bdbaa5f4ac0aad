"""The replication report is what the recipes' rules and results make it."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import mean, stdev

import pytest

from experiments import replication
from experiments.verdict_picture import draw_verdicts, short
from flowexp.cli.recipes import (
    Rows,
    by_seed,
    dips_by_seed,
    find_recipes,
    network_rows,
    peaks_by_seed,
    read_recipe,
    shares_saved,
)
from flowexp.records.tables import read_csv


def test_the_committed_report_is_that_of_the_rules_and_results_that_are_committed() -> None:
    assert replication.PAGE.read_text() == replication.report(replication.results())


def test_every_committed_verdict_follows_from_the_committed_tables_by_the_committed_rules() -> None:
    judged = {name: replication.judge_again(name) for name in replication.shipped_recipes()}
    kept = {name: replication.KEPT / name / "claims.json" for name in judged}
    assert judged == {name: json.loads(file.read_text()) if file.exists() else {} for name, file in kept.items()}
    assert sum(map(len, judged.values())) >= 79


def test_what_other_runs_say_of_a_claim_stands_with_its_verdict() -> None:
    claim = {"claim": "A", "state": "refuted", "evidence": "0.1 points", "beside": "2 points after 10,000 steps"}
    result = replication.Result("lcf/a", "About.", {"a": claim}, {}, {}, None)
    page = replication.report([result])
    assert page.count("0.1 points; **beside it**: 2 points after 10,000 steps") == 2  # under the refuted, in the table
    assert replication.evidence_of({"evidence": "0.1 points"}) == "0.1 points"


@pytest.mark.parametrize(
    ("mean_of", "error", "whether"), [(2.0, 0.4, True), (2.0, 0.5, False), (0.1, 0.2, True), (0.5, 0.2, False)]
)
def test_a_verdict_stands_where_4_3_standard_errors_say_the_same(mean_of: float, error: float, whether: bool) -> None:
    assert replication.stands(mean_of, error) == whether
    effects = [{"mean": mean_of, "standard_error": error}, {"mean": 3.0, "standard_error": 0.1}]
    claims = {
        str(n): {"claim": "A", "state": "supported", "evidence": "", "effect": of} for n, of in enumerate(effects)
    }
    page = replication.report([replication.Result("lcf/a", "About.", claims, {}, {}, None)])
    assert f"By that {2 - 1 - whether} of the 2 verdicts" in page


def of_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Their mean and its standard error, in hundredths."""
    return 100 * mean(values), 100 * stdev(values) / len(values) ** 0.5


def kept(recipe: str, table: str = "probe") -> Rows:
    return read_csv(replication.KEPT / recipe / f"{table}.csv")


def dip_of_fresh_seeds() -> str:
    return "{:.1f} points ({:.1f}; lcf/cut_off_alone)".format(*of_seeds(dips_by_seed(kept("lcf/cut_off_alone"), "FM")))


def dip_on_a_gpu() -> str:
    return "{:.1f} ({:.1f}; lcf/fig07)".format(*of_seeds(dips_by_seed(kept("lcf/fig07_rivals"), "FM")))


def gain_at_block_2() -> str:
    rows = [row for row in kept("lcf/fig07_rivals") if row["tap"] == 2]
    ours, fm = (mean(peaks_by_seed(rows, line)) for line in ("DDAE++", "FM"))
    return f"at block 2 it gains {100 * (ours - fm):.1f} points"


def past_the_exact_marginal() -> str:
    rows = kept("vd/fig03_latent_distance", "distance")
    times = sorted({row["progress"] for row in rows})
    shares = []
    for time in (times[0], times[2], times[4]):
        exact = by_seed(rows, "fld_marginal", SSC="FM", progress=time)
        shares.append(of_seeds(shares_saved(exact, by_seed(rows, "fld", SSC="SSC", progress=time))))
    return "by {:.1f} ({:.1f}), {:.1f} ({:.1f}) and {:.1f} % ({:.1f})".format(
        *(number for of in shares for number in of)
    )


def norms_at_low_noise() -> str:
    rows = [row for row in kept("lcf/fig09_jacobian", "jacobian") if row["method"] == "FM"]
    rises = {}
    for t in dict.fromkeys(row["t"] for row in rows):
        norms = [[row["frobenius"] for row in rows if (row["t"], row["seed"]) == (t, seed)] for seed in range(3)]
        rises[t] = [number / 100 for number in of_seeds([max(of_seed) / min(of_seed) - 1 for of_seed in norms])]
    most = max(rise for t, (rise, _) in rises.items() if t >= 0.2)
    least, low = rises[0.005], rises[0.02]
    said = "{:.1f} ({:.1f}) at t = 0.005, {:.1f} ({:.1f}) at t = 0.02; from t = 0.2 on it is {:.1f} at most"
    return said.format(*least, *low, most)


def scales_after_10000_steps() -> str:
    rows = kept("vd/fig04_network_calls", "grid")
    where = {"sampler": "Euler-Maruyama", "sampler.num_steps": 50}
    plain, *others = (
        by_seed(rows, "frechet/efficientnet_lite", SSC=scale, **where)
        for scale in ("none", "1.1 to 1", "1 to 1.1", "constant 1.05")
    )
    gains = [number for scaled in others for number in of_seeds(shares_saved(plain, scaled))]
    return "early {:.1f} % ({:.1f}), late {:.1f} % ({:.1f}), constant 1.05 {:.1f} % ({:.1f}; vd/fig04)".format(*gains)


def calls_of_a_larger_network() -> str:
    rows = read_csv(replication.DOCS / "results/larger_network/vd/fig04_network_calls/grid.csv")
    where = {"sampler": "Euler-Maruyama", "SSC": "1.1 to 1", "sampler.num_steps": 50}
    with_ssc, without = (
        by_seed(rows, "frechet/efficientnet_lite", **where | cell)[0]
        for cell in ({}, {"SSC": "none", "sampler.num_steps": 250})
    )
    return f"{with_ssc:.0f} with 50 calls, {without:.0f} with 250"


def shapes_after_10000_steps() -> str:
    rows = kept("vd/fig04_network_calls", "grid")
    where = {"sampler": "Euler-Maruyama", "sampler.num_steps": 50}
    late, early = (by_seed(rows, "frechet/efficientnet_lite", SSC=shape, **where) for shape in ("quad_out", "quad_in"))
    return "by {:.1f} % ({:.1f}; vd/fig04)".format(*of_seeds(shares_saved(late, early)))


def gradient_of_the_papers_probe() -> str:
    rows = network_rows(kept("lcf/fig04_probe_curve", "curve"), "paper")
    left = [100 * row["gradient_left"] for row in rows if row["method"] == "FM"]
    return f"{min(left):.0f} to {max(left):.0f} % of its gradient are left"


def cross_terms_at_the_ends() -> str:
    rows = kept("vd/appendix_d1_cross_terms", "given_state")
    of = {t: mean(row["relative"] for row in rows if row["t"] == t) for t in dict.fromkeys(row["t"] for row in rows)}
    return f"{of[0.02]:.3f} at t = 0.02 and {of[0.98]:.3f} at 0.98, of {max(of.values()):.3f} at most"


@pytest.mark.parametrize(
    ("recipe", "claim", "phrase"),
    [
        ("lcf/fig04_probe_curve", "dip", dip_of_fresh_seeds),
        ("lcf/fig04_probe_curve", "dip", dip_on_a_gpu),
        ("lcf/fig07_rivals", "ddaepp_better_peak", gain_at_block_2),
        ("vd/fig03_latent_distance", "ssc_is_ahead_of_schedule", past_the_exact_marginal),
        ("lcf/fig09_jacobian", "bounded_over_training", norms_at_low_noise),
        ("vd/table05_injection", "early_gains", scales_after_10000_steps),
        ("vd/fig04_network_calls", "fifty_with_ssc_beat_250", calls_of_a_larger_network),
        ("vd/table07_shapes", "shape_matters_beside_the_mean", shapes_after_10000_steps),
        ("lcf/fig04_probe_curve", "dip_of_the_papers_probe", gradient_of_the_papers_probe),
        ("vd/appendix_d1_cross_terms", "cross_terms_vanish_given_the_state", cross_terms_at_the_ends),
    ],
)
def test_what_is_said_beside_a_verdict_is_in_the_other_runs_tables(
    recipe: str, claim: str, phrase: Callable[[], str]
) -> None:
    assert phrase() in read_recipe(recipe, []).claims[claim]["beside"]


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
