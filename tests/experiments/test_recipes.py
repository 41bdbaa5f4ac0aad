"""Recipes run whole at their smallest budget, train shared runs once, and draw again without training."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest
from omegaconf import OmegaConf

from experiments import side_by_side
from experiments.lcf import fig04_probe_curve, fig05_over_training, fig13_training_set
from experiments.lcf.dips import dips
from experiments.recipes import compose_run, markdown_table, measured_over_steps, read_recipe, run_of
from experiments.velocity_deficit import fig04_network_calls, fig05_scales
from flowexp.records.tables import read_csv

ROOT = Path(__file__).parents[2]
RECIPES = sorted(path for path in (ROOT / "experiments").rglob("*.yaml"))


@pytest.fixture
def run_recipe(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Runs a recipe at its smallest budget, in this process."""

    def run(recipe: ModuleType, *arguments: str) -> None:
        monkeypatch.setattr(sys, "argv", ["recipe", "budget=smoke", *arguments])
        recipe.main()

    return run


@pytest.mark.slow
def test_figure_4_trains_once_draws_and_redraws(
    workdir: Path, run_recipe: Callable[..., None], monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """As `make reproduce-fig4` does it, with a process for each run."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    command = [sys.executable, "-m", "experiments.lcf.fig04_probe_curve", "budget=smoke"]
    subprocess.run(command, timeout=600, check=True)
    results = workdir / "results" / "lcf" / "fig04_probe_curve" / "smoke"
    rows = read_csv(results / "curve.csv")
    assert {(row["method"], row["t"]) for row in rows} == {(m, t) for m in ("FM", "LCF") for t in (0.0, 0.1, 0.4)}
    protocol = json.loads((results / "protocol.json").read_text())
    assert protocol["digits, LCF"]["objective"]["T_min"] == 100 and protocol["digits, FM"]["versions"]["torch"]

    (results / "digits.png").unlink()
    assert "flowexp.train" in capfd.readouterr().out
    run_recipe(fig04_probe_curve, "redraw=true")
    assert "flowexp.train" not in capfd.readouterr().out
    assert (results / "digits.png").exists()

    run_recipe(fig04_probe_curve)
    shared = capfd.readouterr().out
    assert "trained and measured as needed" in shared and "flowexp.train" not in shared


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["budget=tiny"], "there is no budget tiny.*Choices: smoke, cpu, paper"),
        (["bugdet=smoke"], "this recipe takes budget=... and redraw=true, run=FOLDER, got bugdet"),
        (["run=outputs/none"], "run=outputs/none is no run folder"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(arguments: list[str], said: str) -> None:
    with pytest.raises(SystemExit, match=said):
        read_recipe(fig05_scales.__file__, arguments, takes=("redraw", "run"))


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES, ids=lambda path: path.stem)
def test_every_line_of_every_budget_composes(recipe: Path) -> None:
    config = OmegaConf.load(recipe)
    for budget in config.budgets.values():
        panels = budget.panels.values() if "panels" in budget else [budget.get("lines", {})]
        for overrides in (overrides for lines in panels for overrides in lines.values()):
            assert compose_run([*overrides, *budget.shared]).objective._target_


def test_a_table_keeps_its_columns_whatever_is_in_its_cells() -> None:
    table = markdown_table([{"|v| / |v*|": 0.82649, "parameters": 1867664.0, "of": None}])
    head, rule, row = table.splitlines()
    assert (head, rule) == (r"| \|v\| / \|v*\| | parameters | of |", "| --- | --- | --- |")
    assert row == "| 0.8265 | 1,867,664 |  |"


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_the_three_methods_are_shown_side_by_side(workdir: Path, run_recipe: Callable[..., None]) -> None:
    run_recipe(side_by_side)
    results = workdir / "results" / "side_by_side" / "smoke"
    made = {path.name for path in results.iterdir()}
    assert {"samples_fm.png", "samples_lcf.png", "samples_mafm.png", "probe_curve.png", "noise_levels.png"} <= made
    table = (results / "numbers.md").read_text()
    assert all(word in table for word in ("FM", "LCF", "MAFM", "frechet/efficientnet_lite", "probe/peak"))


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_recipes_that_train_nothing_evaluate_one_run_and_draw_again(
    workdir: Path, run_recipe: Callable[..., None]
) -> None:
    def run(recipe: ModuleType, *arguments: str) -> list[dict]:
        run_recipe(recipe, *arguments)
        return read_csv(results / recipe.__name__.rpartition(".")[2] / "smoke/grid.csv", words=["ssc"])

    results = workdir / "results/velocity_deficit"
    (row,) = run(fig04_network_calls)
    assert (row["ssc"], row["network calls"]) == ("linear", 2)
    assert (results / "fig04_network_calls/smoke/network_calls.png").exists()

    rows, smoke = run(fig05_scales), results / "fig05_scales/smoke"
    cells = json.loads((smoke / "protocol.json").read_text())["evaluated"]
    assert [(row["sampler.s0"], row["sampler.s1"]) for row in rows] == [(1.0, 1.0), (1.1, 1.0)]
    assert [[*cell["cell"].values()] for cell in cells] == [[1.0, 1.0], [1.1, 1.0]]
    assert rows[0]["frechet/efficientnet_lite"] != rows[1]["frechet/efficientnet_lite"]
    assert (smoke / "samples.png").exists()
    assert len(list((workdir / "outputs").rglob("*.ckpt"))) == 1  # the run of both recipes

    shutil.rmtree(workdir / "outputs")
    (smoke / "distances.png").unlink()
    run(fig05_scales, "redraw=true")
    assert (smoke / "distances.png").exists() and not (workdir / "outputs").exists()


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_what_is_measured_on_the_way_takes_a_training_of_its_own(
    workdir: Path, run_recipe: Callable[..., None]
) -> None:
    """LCF Figures 5 and 12, where a run that trains the same was not measured on the way."""
    recipe = read_recipe(fig05_over_training.__file__, ["budget=smoke"])
    line = [*recipe.settings.panels.digits.FM, *recipe.settings.shared, "callbacks.frechet=null"]
    earlier = run_of([*line, "callbacks.probe=null"])
    run_recipe(fig05_over_training)
    results = workdir / "results/lcf/fig05_over_training/smoke"
    distances = read_csv(results / "distances.csv")
    assert [(row["method"], row["step"]) for row in distances] == [(m, s) for m in ("FM", "LCF") for s in (10, 20)]
    assert distances[0]["frechet/efficientnet_lite"] != distances[1]["frechet/efficientnet_lite"]
    assert {(row["step"], row["t"]) for row in read_csv(results / "probe.csv")} == {
        (step, t) for step in (10, 20) for t in (0.0, 0.1, 0.4)
    }
    assert {path.stem for path in results.glob("*.png")} == {"digits_distance", "digits_probe_FM", "digits_probe_LCF"}

    later = run_of([*line, "callbacks.probe.every_n_steps=null"])
    assert list(measured_over_steps(later, "probe")) == [20] and later.trained_by().path != later.path
    assert len(list((workdir / "outputs").rglob("trained.json"))) == len([earlier, "FM", "LCF"])


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_networks_of_few_images_and_of_many_are_probed_with_the_same(
    workdir: Path, run_recipe: Callable[..., None]
) -> None:
    """LCF Figure 13."""
    run_recipe(fig13_training_set)
    results = workdir / "results/lcf/fig13_training_set/smoke"
    sizes, levels = ("100 images", "1,437 images"), (0.0, 0.1, 0.4)
    rows = read_csv(results / "probe.csv", words=["trained on"])
    assert [(row["trained on"], row["t"]) for row in rows] == [(size, t) for size in sizes for t in levels]
    protocol = json.loads((results / "protocol.json").read_text())
    assert [protocol[size]["plan"]["data"] for size in sizes] == [f"digits, {size} of 1 x 8 x 8" for size in sizes]
    assert {protocol[size]["measured"]["probe"]["num_train"] for size in sizes} == {1437}
    (results / "probe.png").unlink()
    shutil.rmtree(workdir / "outputs")
    run_recipe(fig13_training_set, "redraw=true")
    assert (results / "probe.png").exists()


def test_the_dip_of_a_curve_is_from_its_peak_to_its_cleanest_level() -> None:
    curves = {"FM": {0.1: 0.7, 0.0: 0.5, 0.5: 0.2}, "LCF": {0.0: 0.6, 0.1: 0.4, 0.5: 0.1}}
    rows = [{"method": name, "t": t, "accuracy": a} for name, curve in curves.items() for t, a in curve.items()]
    first, second = dips(rows, {"method": "whose"})
    assert first == {"whose": "FM", "peak": 0.7, "t at the peak": 0.1, "at t = 0": 0.5, "dip": pytest.approx(0.2)}
    assert (second["whose"], second["t at the peak"], second["dip"]) == ("LCF", 0.0, 0.0)


def test_the_laws_of_the_training_time_have_densities_of_integral_one() -> None:
    from experiments.lcf.fig08_time_densities import densities

    laws = OmegaConf.load(ROOT / "experiments/lcf/fig08_time_densities.yaml").budgets.cpu.laws
    rows = densities(laws, 400)
    for law in laws:
        own = [row["density"] for row in rows if row["law"] == law]
        assert sum(own) / len(own) == pytest.approx(1, abs=1e-3)
    first = {law: next(row["t"] for row in rows if row["law"] == law) for law in laws}
    low = {law: sum(r["density"] for r in rows if r["law"] == law and r["t"] < 0.2) / 400 for law in laws}
    assert set(first.values()) == {0.5 / 400}
    assert low["logit-normal, m = -0.5"] > low["logit-normal, m = 0"] > low["logit-normal, m = 0.5"]


def test_sscs_schedules_add_one_area_and_its_controls_are_what_they_are_called() -> None:
    """VD Table 7's shapes inject as much as the linear one; Table 5 compares that with a constant and a late one."""
    from experiments.velocity_deficit.fig08_schedules import scales

    rows = scales(["linear", "cosine", "quad_in", "quad_out", "late", "constant"], 1001)
    of = {name: [row["scale"] for row in rows if row["schedule"] == name] for name in {row["schedule"] for row in rows}}
    for name in ("linear", "cosine", "quad_in", "quad_out", "late", "constant"):
        assert sum(of[name]) / len(of[name]) == pytest.approx(1.05, abs=1e-3)
    assert of["linear"][0] == of["cosine"][0] == 1.0 and of["linear"][-1] == pytest.approx(1.1)  # 0 is clean data
    assert of["late"][0] == pytest.approx(1.1) and of["late"][-1] == 1.0 and len(set(of["constant"])) == 1
