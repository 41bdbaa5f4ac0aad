"""The rules of LCF's recipes on tables whose end is known, without training."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from flowexp.cli.recipes import denied, find_recipes, judge_difference, read_recipe, shares_saved
from flowexp.cli.recipes.comparing.probe_curves import at_best_taps, clean_by_seed, dips_by_seed, peaks_by_seed

Row = dict[str, object]


def module_of(name: str) -> ModuleType:
    return read_recipe(name, ["budget=cpu"]).module()


def probe_rows(curves: dict[str, dict[float, float]], tap: int = 4, **columns: object) -> list[Row]:
    """Rows of three seeds, one point apart from each other."""
    shared = {"reading": "converged", "features": "network", "tap": tap, **columns}
    return [
        {"method": method, "seed": seed, "t": t, "accuracy": accuracy + seed / 1000, **shared}
        for method, curve in curves.items()
        for seed in range(3)
        for t, accuracy in curve.items()
    ]


def test_a_curve_is_that_of_the_methods_best_tap_and_its_dip_that_of_each_seed() -> None:
    rows = probe_rows({"FM": {0.0: 0.5, 0.1: 0.6, 0.4: 0.3}}) + probe_rows({"FM": {0.0: 0.4, 0.1: 0.4}}, tap=2)
    assert {row["tap"] for row in at_best_taps(rows)} == {4}
    assert dips_by_seed(rows, "FM") == pytest.approx([0.1] * 3)
    assert clean_by_seed(rows, "FM") == pytest.approx([0.5, 0.501, 0.502])
    assert peaks_by_seed(rows, "FM") == pytest.approx([0.6, 0.601, 0.602])
    assert dips_by_seed(rows, "LCF") == clean_by_seed(rows, "FM", "paper") == []


def test_a_claim_that_denies_a_difference_ends_the_other_way_round() -> None:
    states = [denied(judge_difference(values, 0.01)).state for values in ([0.001] * 3, [0.05, 0.06, 0.07], [0.001])]
    assert states == ["supported", "refuted", "not testable at this scale"]
    assert shares_saved({0: 10.0, 1: 8.0}, {0: 5.0}) == [0.5]


@pytest.mark.parametrize(("lcf", "state"), [(80.0, "supported"), (120.0, "refuted")])
def test_figure_5_is_decided_by_distances_of_the_same_seed(lcf: float, state: str) -> None:
    distances = [
        {"panel": "p", "method": method, "seed": seed, "step": step, "epoch": step / 10, "fid": value + seed}
        for method, value in (("FM", 100.0), ("LCF", lcf))
        for seed in range(3)
        for step in (10, 20)
    ]
    early, late = ({"FM": {0.0: clean, 0.1: 0.7, 0.4: 0.5}} for clean in (0.7, 0.6))
    probe = probe_rows(early, panel="p", epoch=1.0) + probe_rows(late, panel="p", epoch=2.0)
    judged = module_of("lcf/fig05").judge({"distances": distances, "probe": probe})
    assert judged["sooner"].state == judged["lower_in_the_end"].state == state
    assert judged["no_dip_early"].state == judged["dip_emerges"].state == "supported"


def test_figure_13_is_decided_for_each_reading_of_its_unit() -> None:
    module = module_of("lcf/fig13")
    flat, dip = {0.0: 0.7, 0.1: 0.6}, {0.0: 0.6, 0.1: 0.7}
    steps = probe_rows({"60,000 images": dip, "1,000 images": dip}, panel="equal steps")
    epochs = probe_rows({"1,000 images": flat, "60,000 images": dip}, panel="equal epochs")
    judged = {name: judgement.state for name, judgement in module.judge({"probe": steps + epochs}).items()}
    assert judged == {
        "small_sets_no_dip_equal_steps": "refuted",
        "dip_grows_with_the_set": "refuted",
        "small_sets_no_dip_equal_epochs": "supported",
        "dip_grows_with_the_set_equal_epochs": "supported",
    }


def test_nothing_is_said_of_a_dip_that_is_not_there() -> None:
    """Where features lose nothing towards clean data, others that lose nothing either support and refute nothing."""
    flat, dip = {0.0: 0.7, 0.1: 0.7}, {0.0: 0.6, 0.1: 0.7}
    distances = [
        {"method": name, "seed": seed, "step": 10, "epoch": 1.0, "fid": 1.0 + seed}
        for name in ("FM", "LCF", "ExFM", "x-prediction", "DDAE++", "Dispersive Loss", "m = -0.5", "m = 0", "m = 0.5")
        for seed in range(3)
    ]
    for figure, claim, plain, others in (
        ("fig07", "ddaepp_keeps_the_dip", "FM", ("DDAE++", "Dispersive Loss", "LCF")),
        ("fig08", "all_degrade", "uniform", ("m = -0.5", "m = 0", "m = 0.5")),
        ("fig11", "exfm_keeps_the_dip", "FM", ("ExFM", "x-prediction", "LCF")),
        ("fig13", "small_sets_no_dip_equal_steps", "60,000 images", ("1,000 images",)),
        ("fig13", "dip_grows_with_the_set", "60,000 images", ("1,000 images",)),
    ):
        states = []
        for curve in (flat, dip):
            methods = {plain: curve} | dict.fromkeys(others, flat)
            panels = ("equal steps", "equal epochs") if figure == "fig13" else ("",)
            probe = [row for panel in panels for row in probe_rows(methods, panel=panel)]
            states.append(module_of(f"lcf/{figure}").judge({"distances": distances, "probe": probe})[claim].state)
        assert states[0] == "not testable at this scale", (figure, states)
        assert states[1] in {"supported", "refuted"}, (figure, states)


@pytest.mark.parametrize(("clean", "distance", "state"), [(0.795, 80.0, "supported"), (0.770, 120.0, "refuted")])
def test_logit_normal_times_are_put_beside_fm_and_the_cut_off(clean: float, distance: float, state: str) -> None:
    curves = {"FM": 0.77, "L_FM only": 0.80, "logit-normal": clean}
    scores = [
        {"method": name, "seed": seed, "last step": last_step, "frechet/x": value * (1 + seed / 1000)}
        for name, value in (("FM", 100.0), ("L_FM only", 100.0), ("logit-normal", distance))
        for seed in range(3)
        for last_step in ("integrated", "a jump from T_min")
    ]
    probe = probe_rows({name: {0.0: at_clean, 0.1: 0.7} for name, at_clean in curves.items()})
    judged = module_of("lcf/cut_off_alone").judge({"probe": probe, "scores": scores})
    assert {ended.state for claim, ended in judged.items() if claim.startswith("logit_normal_")} == {state}


def test_proposition_5_is_decided_in_gains_and_in_shares() -> None:
    """Both gains fall towards clean data, that along class means faster: no rise of G_noise, and yet a reallocation."""
    rows = [
        {"method": "FM", "seed": seed, "step": step, "epoch": 1.0, "t": t, "frobenius": 2.0 + seed / 100,
         "g_sem": g_sem, "g_noise": g_noise, "ratio": g_sem / g_noise}
        for seed in range(3)
        for step in (10, 20)
        for t, g_sem, g_noise in ((0.005, 1.0, 1.0), (0.3, 8.0, 2.0))
    ]  # fmt: skip
    judged = module_of("lcf/fig09").judge({"jacobian": rows, "all_tokens": rows})
    states = {name: judgement.state for name, judgement in judged.items()}
    assert states["noise_gain_rises"] == "refuted"
    assert states["semantic_gain_does_not"] == states["share_reallocated"] == "supported"
    assert states["bounded_over_training"] == "supported"
    assert states["lcf_prevents_it"] == "not testable at this scale"


def test_proposition_1s_slope_is_that_of_the_target() -> None:
    for power, state in ((-1.0, "supported"), (-0.5, "refuted")):
        rows = [
            {"method": method, "seed": seed, "t": t, "noise_target": t**power, "noise_network": t**-0.4}
            for method in ("FM", "LCF")
            for seed in range(3)
            for t in (0.005, 0.02, 0.1, 0.5)
        ]
        judged = module_of("lcf/prop1").judge({"condition": rows})
        assert judged["demand_diverges"].state == state
        assert judged["lcf_relieves"].state == "refuted"


@pytest.mark.parametrize(
    ("short", "name"),
    [
        ("lcf-fig9", "lcf/fig09_jacobian"),
        ("lcf-prop5", "lcf/fig09_jacobian"),
        ("lcf/fig12", "lcf/fig05_over_training"),
        ("lcf-fig15", "lcf/fig14_samples"),
        ("lcf-table3", "lcf/table01_settings"),
        ("lcf-prop3", "lcf/proposition3_convergence"),
    ],
)
def test_every_figure_table_and_proposition_of_lcf_has_a_name(short: str, name: str, workdir: Path) -> None:
    assert read_recipe(short, ["budget=cpu"]).name == name in find_recipes()
