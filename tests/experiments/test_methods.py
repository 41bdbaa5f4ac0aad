"""The table of all methods: which lines share which training, and that a line can be added to a table."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from omegaconf import DictConfig, OmegaConf

from experiments import methods
from flowexp.cli.composing import config_folder
from flowexp.cli.recipes import Recipe, read_recipe
from flowexp.cli.recipes.runs import compose_run
from flowexp.cli.threads import THREADS, num_cores
from flowexp.flow.losses.contrastive import DENOMINATORS
from flowexp.flow.losses.magnitude import FORMS
from flowexp.flow.solvers import SOLVERS
from flowexp.flow.solvers.diffusions import DIFFUSIONS
from flowexp.flow.solvers.sde import LAST_STEPS
from flowexp.objectives import ExplicitFlowMatching, FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching
from flowexp.records.keys import training_key
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import read_csv, write_csv

FILE = str(methods.__file__)
CONFIG = OmegaConf.load(Path(FILE).with_suffix(".yaml"))
SMOKE = CONFIG.budgets.smoke

composed_once = pytest.mark.xdist_group("methods")  # 98 configs take a while
SAMPLING = ("sampler", "ssc")  # what a line may change without training


@pytest.fixture(scope="module")
def configs() -> dict[str, DictConfig]:
    """What every line trains and measures, at the smallest budget."""
    return {name: compose_run(methods.overrides_of(method, SMOKE)) for name, method in CONFIG.methods.items()}


def test_a_line_that_trains_nothing_says_what_its_source_says_and_how_it_samples() -> None:
    for name, method in CONFIG.methods.items():
        if not methods.is_trained(method):
            source = list(CONFIG.methods[method["from"]].overrides)
            own = list(method.overrides)
            assert own[: len(source)] == source, name
            assert all(said.startswith(SAMPLING) for said in own[len(source) :]), name


def test_no_two_lines_are_the_same() -> None:
    said = [(m.get("steps_per_call", 1), m.get("guide"), *m.overrides) for m in CONFIG.methods.values()]
    assert len(set(said)) == len(said)


@pytest.mark.slow
@composed_once
def test_a_line_that_trains_nothing_has_the_training_of_its_source(configs: dict[str, DictConfig]) -> None:
    keys = {name: training_key(config) for name, config in configs.items()}
    shared = {name: method["from"] for name, method in CONFIG.methods.items() if "from" in method}
    assert all(keys[name] == keys[source] for name, source in shared.items())
    assert len(set(keys.values())) == len(CONFIG.methods) - len(shared)


def test_commands_that_are_called_side_by_side_share_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(THREADS, raising=False)
    with methods.cores_shared(num_cores()):
        assert os.environ[THREADS] == "1"
    assert THREADS not in os.environ
    monkeypatch.setenv(THREADS, "3")  # what the user says goes
    with methods.cores_shared(num_cores()):
        assert os.environ[THREADS] == "3"
    assert os.environ[THREADS] == "3"


def test_names_of_methods_give_folders_of_their_own() -> None:
    assert len({methods.folder_of(name) for name in CONFIG.methods}) == len(CONFIG.methods)


def test_lines_are_measured_and_guided_by_lines_that_train() -> None:
    named = [method[key] for method in CONFIG.methods.values() for key in ("from", "guide") if key in method]
    assert all(methods.is_trained(CONFIG.methods[name]) for name in named)


def test_every_table_and_figure_that_compares_methods_has_a_line() -> None:
    said = " ".join(str(method.shows) for method in CONFIG.methods.values())
    lcf = [f"LCF {place}" for place in ("Alg. 1", "Fig. 6a", "Fig. 6c", "Fig. 7", "Fig. 8", "Fig. 10", "Fig. 11")]
    vd = [f"VD {place}" for place in ("eq. 10", "Fig. 4", "Fig. 5", "Tables 4 and 12")]
    vd += [f"VD Table {number}" for number in (1, 2, 3, 5, 6, 7, 8, 9, 10)]
    assert not [place for place in lcf + vd if place not in said]


@pytest.mark.slow
@composed_once
def test_every_objective_term_path_solver_and_form_has_a_line(configs: dict[str, DictConfig]) -> None:
    def values(key: str) -> set[object]:
        return {OmegaConf.select(config, key) for config in configs.values()} - {None}

    def targets(key: str) -> set[str]:
        return {str(value).rsplit(".", 1)[1] for value in values(f"{key}._target_")}

    objectives = (FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching, ExplicitFlowMatching)
    assert targets("objective") == {objective.__name__ for objective in objectives}
    assert values("objective.denominator") == set(DENOMINATORS)
    assert values("objective.form") == set(FORMS)
    assert values("objective.profile") == {"linear", "cosine", "quad_in", "quad_out"}
    assert values("terms.dispersive.form") == {"infonce_l2", "hinge", "covariance"}
    terms = {path.stem for path in (config_folder() / "terms").glob("*.yaml")} - {"none", "repa_dinov2"}
    assert {name for config in configs.values() for name in config.terms} == terms
    assert targets("interpolant") == {"Linear", "GVP", "SBDMVP"}
    assert values("sampler.solver") == set(SOLVERS)
    assert values("sampler.solver_options.diffusion") == set(DIFFUSIONS)
    assert values("sampler.solver_options.last_step_kind") == set(LAST_STEPS)
    assert values("sampler.profile") == {"linear", "cosine", "quad_in", "quad_out", "constant"}
    assert values("parameterization.prediction") == {"velocity", "data", "noise"}
    assert {config.data._target_.rsplit(".", 1)[1] for config in configs.values()} == {"FashionMNIST", "ClassCaptions"}


@pytest.mark.slow
@composed_once
def test_the_smallest_budget_has_a_line_of_each_kind_and_what_it_is_measured_on(configs: dict[str, DictConfig]) -> None:
    """What it leaves out differs from one of its lines in numbers and shapes alone."""
    kinds = (
        "objective._target_", "interpolant._target_", "time_sampler._target_", "coupling._target_", "data._target_",
        "backbone._target_", "parameterization.prediction", "class_conditional",
    )  # fmt: skip

    def kinds_of(names: Iterable[str]) -> set[object]:
        of_keys = {(key, OmegaConf.select(configs[name], key)) for name in names for key in kinds}
        return of_keys | {term for name in names for term in configs[name].terms}

    smallest = methods.chosen(CONFIG.methods, SMOKE)
    assert list(smallest) == list(SMOKE.only)
    assert kinds_of(smallest) == kinds_of(CONFIG.methods)
    assert methods.with_sources(CONFIG.methods, smallest) == smallest
    assert methods.chosen(CONFIG.methods, CONFIG.budgets.cpu) == CONFIG.methods


@pytest.mark.parametrize(
    ("name", "steps"),
    [("FM", 10), ("FM, Heun", 5), ("FM, RK4", 2), ("FM, five times the calls", 50)],
)
def test_a_solver_gets_the_steps_that_the_network_calls_are_enough_for(name: str, steps: int) -> None:
    said = methods.overrides_of(CONFIG.methods[name], CONFIG.budgets.cpu)
    assert f"sampler.num_steps={steps}" in said


@pytest.mark.slow
def test_a_line_that_measures_does_not_probe_again() -> None:
    config = compose_run(methods.overrides_of(CONFIG.methods["SSC"], CONFIG.budgets.cpu))
    assert config.callbacks.probe is None and config.callbacks.noise_levels is None
    assert config.callbacks.frechet.num_samples == 500 and config.sampler.s0 == 1.1


@pytest.mark.slow
def test_only_the_methods_recipe_knows_missing() -> None:
    assert read_recipe("methods", ["budget=smoke", "missing=true"]).missing
    for name, argument in (("methods", "minutes=3"), ("lcf/fig04", "missing=true")):
        with pytest.raises(ValueError, match=rf"takes budget=cpu, .*redraw=true.*; got {argument.split('=')[0]}"):
            read_recipe(name, ["budget=smoke", argument])


def fake_row(name: str, number: float) -> dict[str, object]:
    numbers = dict.fromkeys((*methods.OF_WEIGHTS, "Frechet distance"), number)
    return {"method": name, "shows": "", **numbers}


@pytest.fixture
def earlier(workdir: Path) -> Recipe:
    """A table of three lines as it used to be written: without network calls, overrides and `weights of`."""
    recipe = Recipe("methods", Path(FILE).with_suffix(".yaml"), "smoke", SMOKE, missing=True)
    recipe.results.mkdir(parents=True)
    measured = {"measured": {methods.SCORES: {"nfe": 7}}}
    rows = [fake_row("FM", 1.0), fake_row("SSC", 2.0), fake_row("no method of today", 3.0)]
    write_csv(recipe.results / "methods.csv", rows)
    (recipe.results / "protocol.json").write_text(json.dumps({row["method"]: measured for row in rows}))
    return recipe


def change_protocol(recipe: Recipe, name: str, **changes: object) -> None:
    path = recipe.results / "protocol.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {name: content[name] | changes}))


def test_an_earlier_tables_lines_are_kept_and_get_the_columns_of_today(earlier: Recipe) -> None:
    rows, protocol = methods.kept(earlier, CONFIG.methods)
    assert set(rows) == set(protocol) == {"FM", "SSC"}
    line = methods.line_of("SSC", CONFIG.methods, rows)
    assert line["weights of"] == "FM" and line["Frechet distance"] == 2 and line["network calls"] == 7
    assert all(line[column] == 1 for column in methods.OF_WEIGHTS)
    assert type(line["parameters"]) is int  # csv does not tell, and a second table would say 1867664.0
    assert methods.line_of("FM", CONFIG.methods, rows)["weights of"] == ""


def test_a_line_has_the_hash_of_its_distances_card_where_that_is_known(earlier: Recipe) -> None:
    change_protocol(earlier, "FM", measured={methods.SCORES: {"nfe": 7, "card": "0000000a"}})  # before numbers had any
    fresh = {"nfe": 7, "card": "0000000a", "cards": {methods.DISTANCE: "1e234567"}}
    change_protocol(earlier, "SSC", measured={methods.SCORES: fresh})
    rows, _ = methods.kept(earlier, CONFIG.methods)
    assert [methods.line_of(name, CONFIG.methods, rows)["card"] for name in ("FM", "SSC")] == ["0000000a", "1e234567"]
    write_csv(earlier.results / "methods.csv", [methods.line_of(name, CONFIG.methods, rows) for name in rows])
    assert table_of(earlier)["SSC"]["card"] == "1e234567"  # a hash, and no number


def test_a_line_whose_card_is_not_known_has_none(earlier: Recipe) -> None:
    rows, _ = methods.kept(earlier, CONFIG.methods)
    assert methods.line_of("FM", CONFIG.methods, rows)["card"] is None


def test_a_line_made_with_other_settings_is_missing_and_so_is_what_measures_it(earlier: Recipe) -> None:
    change_protocol(earlier, "FM", overrides=methods.overrides_of(CONFIG.methods.FM, SMOKE))
    assert set(methods.kept(earlier, CONFIG.methods)[0]) == {"FM", "SSC"}
    change_protocol(earlier, "SSC", overrides=["sampler.s0=1.2"])
    assert set(methods.kept(earlier, CONFIG.methods)[0]) == {"FM"}
    change_protocol(earlier, "FM", overrides=["optimizer.lr=1"])
    assert methods.kept(earlier, CONFIG.methods) == ({}, {})


def test_lines_of_another_number_of_seeds_are_missing(earlier: Recipe) -> None:
    change_protocol(earlier, "FM", seeds=1)
    assert set(methods.kept(earlier, CONFIG.methods)[0]) == {"FM", "SSC"}  # older protocols have one
    assert methods.kept(replace(earlier, seeds=3), CONFIG.methods) == ({}, {})
    for name in ("FM", "SSC"):
        change_protocol(earlier, name, seeds=3)
    assert set(methods.kept(replace(earlier, seeds=3), CONFIG.methods)[0]) == {"FM", "SSC"}


def test_a_line_of_several_seeds_is_their_mean_with_its_spread() -> None:
    of_seeds = [fake_row("FM", number) | {"network calls": 7, "card": "0000000a"} for number in (1.0, 2.0, 3.0)]
    for row in of_seeds:
        row["probe at its peak"] = None  # of data without classes
    line = methods.line_of("FM", CONFIG.methods, {"FM": methods.averaged(of_seeds)})
    assert (line["Frechet distance"], line["spread of Frechet distance"]) == (2, 1)
    assert (line["|v| / |v*|"], line["spread of |v| / |v*|"]) == (2, 1)
    assert line["probe at its peak"] is None and "spread of probe at its peak" not in line
    assert (line["network calls"], line["card"], line["parameters"]) == (7, "0000000a", 1)
    assert not [column for column in methods.averaged(of_seeds[:1]) if column.startswith(methods.SPREAD)]


def test_nothing_is_kept_where_there_is_no_table(workdir: Path) -> None:
    assert methods.kept(
        Recipe("methods", Path(FILE).with_suffix(".yaml"), "smoke", SMOKE, missing=True), CONFIG.methods
    ) == ({}, {})


def test_missing_lines_bring_those_whose_weights_they_need() -> None:
    assert list(methods.with_sources(CONFIG.methods, {"SSC"})) == ["FM", "SSC"]
    guided = methods.with_sources(CONFIG.methods, {"FM, autoguidance 2"})
    assert set(guided) == {"FM", "FM, half the width", "FM, autoguidance 2"}


FEW = ("FM", "FM, half the width", "FM, autoguidance 2")
NUMBERS = {*methods.OF_WEIGHTS, *methods.OF_SAMPLES} - {methods.LOSSES, "card"}


@pytest.fixture
def small() -> DictConfig:
    """The lines of `FEW` on scikit-learn's digits with two blocks, by name."""
    few = {name: OmegaConf.to_container(CONFIG.methods[name]) for name in FEW}
    for method in few.values():
        method["overrides"] += ["data=digits", "+backbone.depth=2"]
    return OmegaConf.create(few)


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_a_table_is_made_and_completed(small: DictConfig, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One line, then the other two beside it, while the first stays as it was."""
    monkeypatch.setenv("PYTHONPATH", str(Path(FILE).parents[1]))
    recipe = Recipe("methods", Path(FILE).with_suffix(".yaml"), "smoke", SMOKE)
    recipe.results.mkdir(parents=True)
    methods.make_table(recipe, {name: small[name] for name in FEW[:1]})
    before = table_of(recipe)

    methods.make_table(replace(recipe, missing=True), small)
    after = table_of(recipe)
    assert list(after) == list(FEW)
    assert all(after[name][column] == before[name][column] for name in before for column in methods.OF_SAMPLES)
    assert all(isinstance(row[column], float) for row in after.values() for column in NUMBERS)
    plain, guided = after["FM"], after["FM, autoguidance 2"]
    assert guided["weights of"] == "FM" and guided["parameters"] == plain["parameters"] > 0
    assert guided["network calls"] >= plain["network calls"] > 0
    assert guided["Frechet distance"] != plain["Frechet distance"]
    assert guided["card"] != plain["card"] and len(guided["card"]) == len(plain["card"]) == 8
    protocol = json.loads((recipe.results / "protocol.json").read_text())
    assert list(protocol) == list(FEW) and protocol["FM, autoguidance 2"]["guide"] == "FM, half the width"


def table_of(recipe: Recipe) -> dict[str, dict[str, Any]]:
    return {str(row["method"]): row for row in read_csv(recipe.results / "methods.csv", words=["card"])}


def test_the_step_of_a_text_network_is_timed_on_captions() -> None:
    small = ("data@data.pictures=digits", "+backbone.depth=1", "+backbone.width=16", "+backbone.heads=2")
    step, parameters = methods.stepper([*methods.overrides_of(CONFIG.methods["MMDiT, captions"], SMOKE), *small])
    step()
    assert parameters > 0


def test_the_last_losses_are_those_of_the_training_that_a_run_shares(workdir: Path) -> None:
    trained, measured = RunFolder(Path("trained")), RunFolder(Path("measured"))
    trained.create(OmegaConf.create({"trained_run": None}))
    measured.create(OmegaConf.create({"trained_run": "trained"}))
    (trained.path / "csv/version_0").mkdir(parents=True)
    logged = [{"train/loss": 0.5 / step, "train/velocity": 0.25 / step, "train/lr": 1.0} for step in (1, 2)]
    write_csv(trained.path / "csv/version_0/metrics.csv", logged)
    assert methods.last_losses(measured) == methods.last_losses(trained) == {"velocity": 0.125}
