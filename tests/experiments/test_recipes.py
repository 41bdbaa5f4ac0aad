"""Recipes run whole at their smallest budget, train shared runs once, and draw again without training."""

from __future__ import annotations

import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

import pytest
from matplotlib.figure import Figure
from omegaconf import OmegaConf

from flowexp import reproduce
from flowexp.cli.recipes import dips, find_recipes, network_rows, read_recipe
from flowexp.cli.recipes.lines import Line, lines_of, scale_of
from flowexp.cli.recipes.recipe import read_yaml, shipped
from flowexp.cli.recipes.runs import compose_run, run_of
from flowexp.records import zoo
from flowexp.records.files.json_files import read_object
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import markdown_table, read_csv

RECIPES = [name for name in find_recipes() if (shipped() / f"{name}.yaml").exists()]
OF_THEIR_OWN = ("methods", "side_by_side", "vd/fig06_pipelines")  # which have tests of their own
OF_LINES = [name for name in RECIPES if name not in OF_THEIR_OWN]


@pytest.mark.parametrize("name", RECIPES)
def test_a_cost_is_a_sentence_about_a_budget(name: str) -> None:
    """A comma in a flow mapping of YAML ends the value: what stands behind it would be a budget of its own."""
    config = read_yaml(find_recipes()[name])
    costs = config.get("costs", {})
    assert all(isinstance(cost, str) for cost in costs.values())
    assert {*costs} <= {*config.get("budgets", {})}


def paper_of(name: str) -> str:
    """lcf or vd; recipes of both papers are made beside LCF's."""
    return "vd" if name.startswith("vd/") else "lcf"


@pytest.fixture
def run_recipe(workdir: Path) -> Callable[..., Path]:
    """Runs a recipe at its smallest budget, in this process; gives the folder of its results."""

    def run(name: str, *arguments: str) -> Path:
        assert reproduce.main([name, "budget=smoke", *arguments]) == 0
        return read_recipe(name, ["budget=smoke"]).results

    return run


@pytest.fixture(scope="module")
def folder_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder in which all recipes of a paper are made, one after the other: they share their runs there."""
    return cache(tmp_path_factory.mktemp)


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.xdist_group(f"recipes of {paper_of(name)}")) for name in OF_LINES]
)
def test_every_recipe_runs_whole_and_draws_again_without_training(
    name: str, folder_of: Callable[[str], Path], run_recipe: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = folder_of(paper_of(name))
    monkeypatch.chdir(folder)
    results = run_recipe(name)
    pictures, tables = {*results.glob("*.png")}, {path: path.read_text() for path in results.glob("*.csv")}
    assert tables
    trains = bool(read_recipe(name, ["budget=smoke"]).lines)
    assert ("settings" in read_object(results / "protocol.json")) != trains  # else a protocol for each line
    of_tables = {path for path in pictures if not path.name.startswith("samples")}
    for path in of_tables:
        path.unlink()
    with out_of_the_way(folder / "outputs"), monkeypatch.context() as patch:
        patch.setattr(Figure, "savefig", lambda figure, file, **how: Path(file).touch())  # it was drawn just now
        run_recipe(name, "redraw=true")
        assert not (folder / "outputs").exists()
    assert {*results.glob("*.png")} == pictures
    assert {path: path.read_text() for path in results.glob("*.csv")} == tables


@contextmanager
def out_of_the_way(folder: Path) -> Iterator[None]:
    """Has no such folder for a while."""
    elsewhere = folder.with_name(f"{folder.name}_elsewhere")
    if folder.exists():
        folder.rename(elsewhere)
    yield
    if elsewhere.exists():
        elsewhere.rename(folder)


@pytest.mark.slow
def test_figure_4_trains_once_and_finds_its_runs_again(
    workdir: Path, capfd: pytest.CaptureFixture[str], warm_python: str
) -> None:
    """As `make reproduce-fig4` does it, with a process for each run."""
    command = [warm_python, "-m", "flowexp.reproduce", "lcf/fig04", "budget=smoke"]
    subprocess.run(command, timeout=600, check=True, env={**os.environ, "PYTHONPATH": str(shipped().parent)})
    results = workdir / "results" / "lcf" / "fig04_probe_curve" / "smoke"
    rows = network_rows(read_csv(results / "curve.csv"))
    assert {(row["method"], row["t"]) for row in rows} == {(m, t) for m in ("FM", "LCF") for t in (0.0, 0.1, 0.4)}
    protocol = json.loads((results / "protocol.json").read_text())
    assert protocol["digits, LCF"]["objective"]["T_min"] == 100 and protocol["digits, FM"]["versions"]["torch"]
    assert (results / "table.md").read_text().startswith("| data | method | reading | block | peak |")
    assert "flowexp.train" in capfd.readouterr().out

    assert reproduce.main(["lcf/fig04", "budget=smoke"]) == 0
    shared = capfd.readouterr().out
    assert "trained and measured as needed" in shared and "flowexp.train" not in shared


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["vd/fig05", "budget=tiny"], "budget must be one of smoke, cpu, gpu, paper, got 'tiny'"),
        (["vd/fig05", "bugdet=smoke"], "takes budget=cpu, .*; got bugdet; did you mean budget"),
        (["vd/fig05", "run=outputs/none"], "run=outputs/none is no run folder"),
        (["vd/fig05", "redraw=maybe"], "redraw must be true or false, got maybe"),
        (["vd/fig05", "redraw=true"], "redraw=true draws the tables in .*, and there are none"),
        (["lcf/fig_05"], "there is no recipe named lcf/fig_05; did you mean lcf/fig"),
        (["lcf/fig"], "there is no recipe named lcf/fig"),
    ],
)
def test_a_wrong_word_is_answered_with_the_right_ones(
    arguments: list[str], sentence: str, workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert reproduce.main(arguments) == 2
    assert re.search(sentence, capsys.readouterr().err)
    assert not list(workdir.iterdir())


def test_without_a_name_all_recipes_are_listed(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert reproduce.main([]) == 0
    page = capsys.readouterr().out
    assert all(f"\n{name}\n" in page for name in RECIPES) and "cpu (2.5 hours of one core)" in page
    assert re.search(r"lcf/fig04_probe_curve\n.*\n.*\n    in docs/results/replication: 4 supported\n", page)


def test_a_recipe_of_the_current_folder_is_found_by_its_name(workdir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (workdir / "mine.yaml").write_text("budgets: {cpu: {num: 3}}\n")
    (workdir / "mine.py").write_text(
        "from flowexp.records.figures import plot_curves\n"
        "def measure(lines): return {'square': [{'x': x, 'y': x**2} for x in range(lines.settings.num)]}\n"
        "def draw(tables): return {'square': plot_curves(tables['square'], 'x', 'y')}\n"
        "def summarise(tables): return tables['square']\n"
    )
    assert reproduce.main(["mine"]) == 0
    results = workdir / "results/mine/cpu"
    made = {path.name for path in results.iterdir()}
    assert made == {"made.json", "protocol.json", "square.csv", "square.png", "table.md", "report.html"}
    assert "| 2 | 4 |" in (results / "table.md").read_text()
    assert capsys.readouterr().out.splitlines()[-1] == "results/mine/cpu/report.html"
    assert reproduce.main([]) == 0 and "budgets: cpu [made]" in capsys.readouterr().out


RECIPE = """
def measure(lines): return {'one': [{'x': lines.settings.num}]}
def draw(tables): return {}
def main(recipe):
    print(recipe.name, 'with', recipe.seeds, 'seeds')
    if recipe.settings.num == 0: raise ValueError('it has no number')
"""


def test_all_gives_each_recipe_what_it_takes_and_goes_on(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    heads = {
        "first": "",
        "second": "takes: [redraw]\n",
        "third": "takes: [pipeline]\nneeds: [pipeline]\n",
        "fourth": "",
    }
    numbers = {"fourth": 0}
    for name, head in heads.items():
        (workdir / f"{name}.yaml").write_text(f"{head}budgets: {{cpu: {{num: {numbers.get(name, 1)}}}}}\n")
        (workdir / f"{name}.py").write_text(RECIPE)
    of_here = {name: Path(f"{name}.yaml") for name in heads}
    monkeypatch.setattr("flowexp.cli.recipes.recipe.find_recipes", lambda: of_here)

    assert reproduce.main(["all", "seeds=2"]) == 1
    out, err = capsys.readouterr()
    assert "first with 2 seeds" in out and "second with 1 seeds" in out  # which takes none
    assert "third with" not in out and "left out: it needs pipeline=FOLDER" in out
    assert "2 of 4 recipes at budget=cpu are made" in out and "left out for want of an argument: third" in out
    assert "error: it has no number" in err and "failed: fourth" in err

    del of_here["fourth"]
    assert reproduce.main(["all"]) == 0
    assert reproduce.main(["all", "pipeline=somewhere"]) == 0
    assert "third with 1 seeds" in capsys.readouterr().out
    assert reproduce.main(["all", "sedes=2"]) == 2
    assert "no recipe of budget=cpu takes sedes=2" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("lcf-fig4", "lcf/fig04_probe_curve"),
        ("lcf/fig04", "lcf/fig04_probe_curve"),
        ("lcf/fig12", "lcf/fig05_over_training"),
        ("vd-fig8", "vd/fig08_schedules"),
    ],
)
def test_figures_are_found_by_short_names(name: str, full: str) -> None:
    assert read_recipe(name, ["budget=smoke"]).name == full


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_LINES)
def test_every_line_of_every_budget_composes(name: str) -> None:
    budgets = OmegaConf.load(find_recipes()[name]).budgets
    for budget in [each for each in budgets if "like" not in budgets[each]]:  # that has the words of another
        for overrides in read_recipe(name, [f"budget={budget}"]).lines.values():
            assert objective_of(*overrides)


@cache
def objective_of(*overrides: str) -> str:
    """What a line trains with; many recipes have the same lines."""
    return str(compose_run(overrides).objective._target_)


def test_a_table_keeps_its_columns_whatever_is_in_its_cells() -> None:
    table = markdown_table([{"|v| / |v*|": 0.82649, "parameters": 1867664.0, "of": None}])
    head, rule, row = table.splitlines()
    assert (head, rule) == (r"| \|v\| / \|v*\| | parameters | of |", "| --- | --- | --- |")
    assert row == "| 0.8265 | 1,867,664 |  |"


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_the_three_methods_are_shown_side_by_side(run_recipe: Callable[..., Path]) -> None:
    results = run_recipe("side_by_side")
    made = {path.name for path in results.iterdir()}
    assert {"samples.png", "probe_curve.png", "noise_levels.png"} <= made
    table, page = (results / "table.md").read_text(), (results / "report.html").read_text()
    assert all(word in table for word in ("FM", "LCF", "MAFM", "real", "a judge is 90 % sure", "with SSC"))
    assert page.count("<img ") == 3 and all(f"<b>{word}</b>" in page for word in ("Samples", "Features", "Velocities"))
    numbers = read_csv(results / "numbers.csv")
    assert all(f"{100 * row['probe/at_clean']:.1f}\u00a0% ({row['method']})" in page for row in numbers)


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_recipes_that_train_nothing_evaluate_one_run(workdir: Path, run_recipe: Callable[..., Path]) -> None:
    plain, corrected = read_csv(run_recipe("vd/fig04") / "grid.csv")
    assert (plain["SSC"], corrected["SSC"]) == ("none", "1.1 to 1")
    assert (plain["method"], plain["sampler"], plain["network calls"]) == ("FM", "Euler-Maruyama", 2)
    assert plain["frechet/efficientnet_lite"] != corrected["frechet/efficientnet_lite"]

    smoke = run_recipe("vd/fig05")
    rows, protocol = read_csv(smoke / "grid.csv"), json.loads((smoke / "protocol.json").read_text())
    assert [(row["sampler.s0"], row["sampler.s1"]) for row in rows] == [(1.0, 1.0), (1.1, 1.0)]
    assert list(protocol) == ["FM, 1.0, 1.0", "FM, 1.1, 1.0"]
    assert rows[0]["frechet/efficientnet_lite"] != rows[1]["frechet/efficientnet_lite"]
    assert len(list((workdir / "outputs").rglob("*.ckpt"))) == 1  # the run of both recipes

    (run,) = {path.parents[1] for path in (workdir / "outputs").rglob("*.ckpt")}
    recipe = read_recipe("vd/fig04", ["budget=smoke", f"run={run}"])
    assert [line.trained.path for line in lines_of(recipe)] == [run, run]
    with pytest.raises(ValueError, match=r"run= stands for the one line of a recipe, and side_by_side has 3"):
        lines_of(read_recipe("side_by_side", ["budget=smoke", f"run={run}"]))


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process", "workdir")
def test_a_recipe_takes_weights_that_were_trained_elsewhere(run_recipe: Callable[..., Path]) -> None:
    results = run_recipe("vd/fig05", "run=zoo:fashion_fm")
    assert len(read_csv(results / "grid.csv")) == 2
    protocol = read_object(results / "protocol.json")
    steps = read_object(zoo.find("fashion_fm") / zoo.ORIGIN)["num_steps"]
    assert all(how["step"] == steps and how["measured"] for how in protocol.values())
    made = read_object(results / "made.json")
    assert f"{steps:,} steps; 1 seed" in made["scale"] and made["seeds"] == 1


def test_a_run_of_ones_own_is_one_seed_whatever_the_budget(workdir: Path) -> None:
    given = ["run=zoo:fashion_fm"]
    assert read_recipe("vd/fig05", given).seeds == 1 and read_recipe("vd/fig05").seeds == 3
    with pytest.raises(ValueError, match="run= is one training, with one seed: leave seeds= out, got 3"):
        read_recipe("vd/fig05", [*given, "seeds=3"])


def test_the_scale_of_adopted_weights_is_their_number_of_steps(tmp_path: Path) -> None:
    for name, content in (
        ("config.yaml", "name: x"),
        ("run.json", '{"plan": {}}'),
        ("trained.json", '{"step": 7000000}'),
    ):
        (tmp_path / name).write_text(content)
    line = Line({"method": "FM"}, RunFolder(tmp_path), RunFolder(tmp_path))
    assert scale_of([line], 1) == "7,000,000 steps; 1 seed"


def test_the_scale_names_the_lines_with_fewer_seeds(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("name: x")
    (tmp_path / "run.json").write_text('{"plan": {"steps": "30"}}')
    run = RunFolder(tmp_path)
    lines = [Line({"method": "wide", "seed": seed}, run, run) for seed in range(3)]
    assert scale_of(lines, 3) == "30 steps; 3 seeds"
    assert scale_of([*lines, Line({"method": "narrow", "seed": 0}, run, run)], 3) == "30 steps; 3 seeds (narrow: 1)"


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_what_is_measured_on_the_way_takes_a_training_of_its_own(workdir: Path) -> None:
    line = [
        "experiment=digits_fm",
        "trainer.max_steps=4",
        "callbacks=noise_levels",
        "callbacks.noise_levels.num_bins=2",
    ]
    first = run_of(line)
    on_the_way = run_of([*line, "callbacks.noise_levels.every_n_steps=2"])
    again = run_of([*line, "callbacks.noise_levels.num_images=16"])
    assert on_the_way.trained_by().path == on_the_way.path != first.path
    assert again.path != again.trained_by().path
    assert len(list((workdir / "outputs").rglob("trained.json"))) == 2


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_a_recipe_measures_its_lines_in_several_ways_and_at_several_steps(workdir: Path) -> None:
    """`measurements`: some of one line alone, and the last step as what was measured of the run itself."""
    (workdir / "mine.py").write_text("")
    levels = "callbacks=noise_levels, callbacks.noise_levels.num_images=16"
    (workdir / "mine.yaml").write_text(
        "budgets:\n  cpu:\n    lines:\n"
        "      A: [experiment=digits_fm]\n      B: [experiment=digits_fm, seed=3]\n"
        "    shared: [trainer.max_steps=4, callbacks=none, checkpoint.keep_every_n_steps=2]\n"
        "    measurements:\n"
        f"      coarse: {{measured: [{levels}, callbacks.noise_levels.num_bins=2], lines: [B]}}\n"
        "      fine:\n        grid: {step: [2, 4]}\n"
        f"        measured: [{levels}, callbacks.noise_levels.num_bins=3]\n"
    )
    lines = lines_of(read_recipe("mine"))
    assert [line.label for line in lines] == ["B, coarse", "A, 2, fine", "A, 4, fine", "B, 2, fine", "B, 4, fine"]
    assert [len(line.rows("noise_levels")) for line in lines.of("coarse")] == [2]
    early, late, *_ = lines.of("fine")
    assert early.rows("noise_levels") != late.rows("noise_levels")
    steps = 1437 // late.trained.trained_config().data.batch_size
    assert (late.epochs(steps), late.epochs(3 * steps)) == (1, 3)
    (command,) = {line.measured.config().checkpoint for line in (late, lines.of("coarse")[0])}
    assert command is None and early.measured.config().checkpoint.endswith("step_00000002.ckpt")


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_takes_seeds(name: str) -> None:
    config = read_yaml(shipped() / f"{name}.yaml")
    given = [f"{key}=here" for key in config.get("needs", [])]
    for budget in config.budgets:
        recipe = read_recipe(name, [f"budget={budget}", "seeds=3", *given])
        first = recipe.settings.get("first_seed", 0)
        assert [*recipe.seeds_of(recipe.seeds)] == [first, first + 1, first + 2]


def test_a_recipe_whose_cells_are_no_runs_goes_on_where_it_stopped(workdir: Path) -> None:
    (workdir / "mine.py").write_text("")
    (workdir / "mine.yaml").write_text("budgets:\n  cpu: {seeds: 2}\n")
    calls: list[int] = []

    def measure() -> dict[str, float]:
        calls.append(1)
        return {"distance": 1 / (2 + len(calls))}

    def found(*cells: dict[str, object]) -> list[float]:
        lines = lines_of(read_recipe("mine"))
        assert [*lines.seeds] == [0, 1]
        return [lines.kept(cell, measure)["distance"] for cell in cells]

    before = found({"seed": 0, "scale": [1.1, 1.0]}, {"seed": 1, "scale": [1.1, 1.0]})
    after = found({"scale": [1.1, 1.0], "seed": 0}, {"seed": 1, "scale": [1.1, 1.0]}, {"seed": 0, "scale": [1.2, 1.0]})
    assert (before, after) == ([1 / 3, 1 / 4], [1 / 3, 1 / 4, 1 / 5])  # whatever the order of a cell's keys


def test_the_dip_of_a_curve_is_from_its_peak_to_its_cleanest_level() -> None:
    curves = {"FM": {0.1: 0.7, 0.0: 0.5, 0.5: 0.2}, "LCF": {0.0: 0.6, 0.1: 0.4, 0.5: 0.1}}
    rows = [{"method": name, "t": t, "accuracy": a} for name, curve in curves.items() for t, a in curve.items()]
    first, second = dips(rows, {"method": "whose"})
    assert first == {"whose": "FM", "peak": 0.7, "t at the peak": 0.1, "at t = 0": 0.5, "dip": pytest.approx(0.2)}
    assert (second["whose"], second["t at the peak"], second["dip"]) == ("LCF", 0.0, 0.0)


def test_the_laws_of_the_training_time_have_densities_of_integral_one() -> None:
    from experiments.lcf.fig08_time_densities import densities

    laws = OmegaConf.load(shipped() / "lcf/fig08_time_densities.yaml").budgets.cpu.laws
    rows = densities(laws, 400)
    for law in laws:
        own = [row["density"] for row in rows if row["law"] == law]
        assert sum(own) / len(own) == pytest.approx(1, abs=1e-3)
    first = {law: next(row["t"] for row in rows if row["law"] == law) for law in laws}
    low = {law: sum(r["density"] for r in rows if r["law"] == law and r["t"] < 0.2) / 400 for law in laws}
    assert set(first.values()) == {0.5 / 400}
    assert low["m = -0.5"] > low["m = 0"] > low["m = 0.5"]


def test_sscs_schedules_add_one_area_and_its_controls_are_what_they_are_called() -> None:
    """VD Table 7's shapes inject as much as the linear one; Table 5 compares that with a constant and a late one."""
    from experiments.vd.fig08_schedules import scales

    rows = scales(["linear", "cosine", "quad_in", "quad_out", "late", "constant"], 1001)
    of = {name: [row["scale"] for row in rows if row["schedule"] == name] for name in {row["schedule"] for row in rows}}
    for name in ("linear", "cosine", "quad_in", "quad_out", "late", "constant"):
        assert sum(of[name]) / len(of[name]) == pytest.approx(1.05, abs=1e-3)
    assert of["linear"][0] == of["cosine"][0] == 1.0 and of["linear"][-1] == pytest.approx(1.1)  # 0 is clean data
    assert of["late"][0] == pytest.approx(1.1) and of["late"][-1] == 1.0 and len(set(of["constant"])) == 1


def test_a_budget_like_another_has_its_lines_at_more_steps_without_the_networks_of_two_cores() -> None:
    cpu, gpu = (read_recipe("lcf/fig05", [f"budget={budget}"]).settings for budget in ("cpu", "gpu"))
    assert gpu.panels == cpu.panels and "+backbone.width=64" in cpu.shared
    assert [*gpu.shared] == [
        "callbacks=none", "checkpoint.keep_every_n_steps=1500", "trainer.max_steps=30000", "trainer.accelerator=gpu"
    ]  # fmt: skip
    assert [*gpu.measurements.distance.grid.step] == [3 * step for step in cpu.measurements.distance.grid.step]
    assert gpu.measurements.distance.measured[-1] == "callbacks.frechet.num_samples=3000"
    assert read_recipe("lcf/fig07", ["budget=gpu"]).seeds == 3
