"""The recipes of The Velocity Deficit: cells, tables, what they compute themselves, and the commands of all budgets."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from experiments.vd import appendix_d1_cross_terms, exact_field, fig01_velocity_norms, fig05_scales, table04_text
from flowexp.cli.composing import Configs
from flowexp.cli.recipes import Printed, Recipe, compare_scores, find_recipes, gains, lines, plot_cells, read_recipe
from flowexp.cli.recipes.lines import cells_of, lines_of
from flowexp.flow.interpolants import Linear
from flowexp.flow.losses import ExactField
from flowexp.flow.sampler import Sampler
from flowexp.measuring.diagnostics import create_projection
from flowexp.measuring.metrics import distance_of, moments_of
from flowexp.records.run_folder import RunFolder

RECIPES = [name for name in find_recipes() if name.startswith("vd/")]


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_what_measures_the_lines_composes_at_every_budget(name: str) -> None:
    """First and last cell of each grid: a paper budget cannot be tried, and its words can be wrong."""
    budgets = OmegaConf.load(find_recipes()[name]).budgets
    for budget in [each for each in budgets if "like" not in budgets[each]]:  # that has the words of another
        settings = read_recipe(name, [f"budget={budget}"]).settings
        if "measured" not in settings:
            continue
        grids = lines._grids(settings)
        for grid in grids:
            cells = [cell for cell in cells_of(grid) if "step" not in cell] or [{}]
            for cell in (cells[0], cells[-1]):
                overrides = lines._overrides(grid, cell, RunFolder(Path("outputs/none")))
                command = settings.get("measured_by", "evaluate")
                assert Configs().compose(command, [*settings.measured, *overrides, "run=outputs/none"]).callbacks


def test_a_grid_has_names_for_overrides_and_may_be_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[tuple[str, ...]] = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(lines, "run_of", lambda overrides: RunFolder(tmp_path / "-".join(overrides)))
    monkeypatch.setattr(lines, "measurement_of", lambda run, command, overrides: called.append(tuple(overrides)) or run)
    Path("mine.py").write_text("")
    Path("mine.yaml").write_text(
        "budgets: {cpu: {seeds: 2, one_seed: [wide], lines: {narrow: [a=1], wide: [a=2]}, measured: [m=1], grid: ["
        "{SSC: {none: [ssc=none], strong: [ssc=constant, sampler.s0=1.1]}, sampler.num_steps: [10]}, {ssc: [late]}]}}"
    )
    found = lines_of(read_recipe("mine"))
    assert [(line.columns["method"], line.columns["seed"]) for line in found][::3] == [
        ("narrow", 0), ("narrow", 1), ("wide", 0)
    ]  # fmt: skip
    assert [line.columns.get("SSC", line.columns.get("ssc")) for line in found][:3] == ["none", "strong", "late"]
    assert called[:3] == [
        ("m=1", "ssc=none", "sampler.num_steps=10"),
        ("m=1", "ssc=constant", "sampler.s0=1.1", "sampler.num_steps=10"),
        ("m=1", "ssc=late"),
    ]


def test_gains_are_of_one_seed_each_and_stand_beside_the_papers_number() -> None:
    distances = {("none", 0): 100.0, ("none", 1): 200.0, ("SSC", 0): 90.0, ("SSC", 1): 160.0, ("SSC", 2): 1.0}
    rows = [{"SSC": name, "seed": seed, "frechet/x": value} for (name, seed), value in distances.items()]
    assert gains(rows, {"SSC": "none"}, {"SSC": "SSC"}) == pytest.approx([0.1, 0.2])  # seed 2 has no plain one
    plain, corrected = compare_scores(rows, ["SSC"], {"SSC": "none"}, Printed({("SSC",): 7.58}, "SiT"))
    assert (plain["frechet/x"], plain["lower by, %"], plain["the paper's FID, SiT"]) == (150, None, None)
    assert (corrected["lower by, %"], corrected["the paper's FID, SiT"]) == (pytest.approx(15), 7.58)
    assert corrected["standard error"] == pytest.approx(100 * math.sqrt(0.005) / math.sqrt(2))


def test_the_papers_points_stand_beside_ours_as_shares_of_their_own_baseline() -> None:
    distances = {("none", 0): 100.0, ("none", 1): 200.0, ("SSC", 0): 90.0, ("SSC", 1): 160.0, ("late", 0): 110.0}
    rows = [{"SSC": name, "seed": seed, "frechet/x": value} for (name, seed), value in distances.items()]
    paper = Printed({("none",): 20.0, ("SSC",): 15.0, ("late",): None}, "SiT")
    figure = plot_cells(rows, ["SSC"], "", {"SSC": "none"}, paper)
    _, axes = figure.axes
    drawn = {
        marker: [float(x) for line in axes.lines if line.get_marker() == marker for x in np.ravel(line.get_xdata())]
        for marker in "sD"
    }
    assert drawn["s"] == pytest.approx([25.0])  # the baseline itself, and what is not printed, have no point
    assert drawn["D"] == pytest.approx([15.0, -10.0])
    assert "the paper's FID, SiT" in axes.get_legend_handles_labels()[1]
    assert len(plot_cells(rows, ["SSC"]).axes) == 1


@pytest.mark.parametrize("spread", [0.0, 0.4])
def test_the_exact_fields_samples_are_of_its_data(spread: float) -> None:
    field = ExactField(torch.randn(30, 1, 6, 6), Linear(), spread=spread)
    projection = create_projection(36, 6)
    reference = exact_field.data_moments(field, projection)
    data = exact_field.drawn(field, 4000, 0)
    samples = exact_field.sampled(Sampler("euler", num_steps=40), field, 1500, 0)
    nothing = torch.zeros(1500, 1, 6, 6)
    far = distance_of(moments_of(projection(nothing)), reference)
    assert distance_of(moments_of(projection(data)), reference) < 0.01 * far
    assert distance_of(moments_of(projection(samples)), reference) < 0.1 * far


def test_ssc_on_exact_fields_is_judged_at_the_calls_that_a_claim_names() -> None:
    rows = [
        {"field": field, "sampler": sampler, "network calls": 50, "SSC": scale, "seed": seed, "frechet/pixels": value}
        for field in ("images", "mixture") for sampler in ("euler_maruyama", "euler")
        for scale, value in (("none", 10.0), ("1.1 to 1", 9.0)) for seed in range(3)
    ]  # fmt: skip
    ends = {name: end.state for name, end in exact_field.judge({"distances": rows}).items()}
    assert ends.pop("ssc_gains_on_exact_images") == "supported"
    assert {state for name, state in ends.items() if name.endswith("_at_250")} == {"not testable at this scale"}


def test_the_cross_term_given_the_state_is_that_of_its_pairs() -> None:
    """Of two images at a level where the state does not tell which, against the sum over the two."""
    images, level = 0.1 * torch.randn(2, 1, 1, 3), 0.8
    (value,) = (appendix_d1_cross_terms.given_state(images, level, 2, seed) for seed in [0])
    (batch,) = appendix_d1_cross_terms.noised_batches(images, level, 0)
    expected = []
    for x in ((1 - level) * batch.data + level * batch.noise).flatten(1).double():
        data = images.flatten(1).double()
        noise = (x - (1 - level) * data) / level
        weights = torch.softmax(-noise.square().sum(dim=1) / 2, dim=0)
        energy = (weights * (data.square() + noise.square()).sum(dim=1)).sum()
        expected.append(abs(float(2 * (weights * (data * noise).sum(dim=1)).sum() / energy)))
    assert value == pytest.approx(sum(expected) / 2)


def test_a_grid_whose_best_cell_is_at_its_end_is_said_to_have_no_optimum_inside() -> None:
    def state(best: float) -> str:
        rows = [
            {"sampler.s0": s0, "sampler.s1": s1, "frechet/x": abs(s0 - best) + abs(s1 - 1.1)}
            for s0 in (1.0, 1.1, 1.2)
            for s1 in (1.0, 1.1, 1.2)
        ]
        return fig05_scales.judge({"grid": rows})["optimum_inside"].state

    assert (state(1.1), state(1.2)) == ("supported", "refuted")


@pytest.mark.parametrize(
    ("best", "s0_matters", "early_is_best"),
    [((1.1, 1.0), "supported", "supported"), ((1.0, 1.1), "refuted", "refuted"), ((1.1, 1.1), "refuted", "refuted")],
)
def test_which_of_the_scales_brings_the_gain_is_judged_over_seeds(
    best: tuple[float, float], s0_matters: str, early_is_best: str
) -> None:
    rows = [
        {"sampler.s0": s0, "sampler.s1": s1, "seed": seed, "frechet/x": 1 + seed + math.dist((s0, s1), best)}
        for s0 in (1.0, 1.1, 1.2) for s1 in (1.0, 1.1, 1.2) for seed in range(3)
    ]  # fmt: skip
    ends = fig05_scales.judge({"grid": rows})
    assert ends["s0_matters_more_than_s1"].state == s0_matters
    assert ends["early_alone_is_best"].state == early_is_best


def test_samples_of_one_training_are_no_further_trainings() -> None:
    def rows(trainings: int) -> list[dict[str, Any]]:
        return [
            {"CFG": 2.0, "SSC": scale, "seed": training, "sample seed": sample,
             "frechet/x": value + training + sample / 100}
            for scale, value in (("none", 10.0), ("1.1 to 1", 9.0))
            for training in range(trainings) for sample in (0, 42, 123)
        ]  # fmt: skip

    one, several = table04_text.over_samples(rows(1)), table04_text.over_samples(rows(3))
    assert [row["seed"] for row in one] == [0, 42, 123] * 2 and "sample seed" not in one[0]
    assert [row["seed"] for row in several] == [0, 1, 2] * 2 and "sample seed" not in several[0]
    assert several[1]["frechet/x"] == pytest.approx(11 + 0.55)
    assert len(gains(several, {"SSC": "none"}, {"SSC": "1.1 to 1"})) == 3


def norms(length: float, exact: float, seed: int) -> list[dict[str, float | str]]:
    """Curves of a network whose length rises on the way, of two training lengths."""
    return [
        {"method": "width 64", "step": step, "progress": progress, "seed": seed, "exact": exact, "deficit": 0.1,
         "velocity": length + rise + 0.001 * seed}
        for step in (500, 3000) for progress, rise in ((0.01, 0.0), (0.5, 0.1), (0.99, -0.1))
    ]  # fmt: skip


def test_a_deficit_is_jensens_where_the_exact_field_has_it_too() -> None:
    def judged(length: float) -> dict[str, str]:
        rows = [row for seed in range(3) for row in norms(length, 1.0, seed)]
        return {name: end.state for name, end in fig01_velocity_norms.judge({"norms": rows}).items()}

    jensens, networks = judged(1.0), judged(0.9)
    assert jensens["deficit_at_noise"] == networks["deficit_at_noise"] == "supported"
    assert (jensens["networks_deficit_at_noise"], networks["networks_deficit_at_noise"]) == ("refuted", "supported")
    assert jensens["monotonic_decay"] == "refuted" and jensens["longer_training_is_not_longer"] == "supported"
    assert jensens["larger_is_longer"] == "not testable at this scale"  # one width


PAPER = {
    "vd/fig04": 3, "vd/table1": 3, "vd/table2": 4, "vd/table3": 3, "vd/table4": 6, "vd/table5": 4, "vd/table6": 6,
    "vd/table7": 4, "vd/table8": 5, "vd/table9": 5, "vd/table10": 5,
}  # fmt: skip


def cells_in(recipe: Recipe) -> list[dict[str, Any]]:
    """The columns of every cell of a recipe without panels, in the order of its yaml."""
    grids = lines._grids(recipe.settings)
    return [{"method": label[-1], **cell} for label in recipe.lines for grid in grids for cell in cells_of(grid)]


@pytest.mark.parametrize("name", PAPER)
def test_the_papers_numbers_stand_beside_the_cells_that_they_are_of(name: str) -> None:
    """Their names are those of the lines and grids of the yaml: a renamed cell would lose its number."""
    recipe = read_recipe(name, ["budget=cpu", "seeds=1"])
    rows = [
        {**cell, "network calls": cell.get("sampler.num_steps", 50), "frechet/x": 1.0, "seed": 0}
        for cell in cells_in(recipe)
    ]
    module = recipe.module()
    table = module.summarise({"grid" if name == "vd/fig04" else "scores": rows})
    (column,) = [column for column in table[0] if column.startswith("the paper's FID")]
    assert sum(row[column] is not None for row in table) == PAPER[name]


TABLES = [
    ("vd/table2", {"CFG": 1.5, "SSC": "1.1 to 1"}, {"ssc_helps_beside_guidance"}),
    ("vd/table3", {"method": "MAFM"}, {"mafm_helps_repa"}),
    ("vd/table3", {"method": "REPA", "SSC": "1.1 to 1"}, {"ssc_helps_repa"}),
    ("vd/table4", {"CFG": 2.0, "SSC": "1.1 to 1"}, {"ssc_helps_text_to_image"}),
    ("vd/table4", {"CFG": 4.0, "SSC": "none"}, {"ssc_harms_under_strong_guidance"}),
    ("vd/table6", {"method": "SBDM-VP", "SSC": "1.1 to 1"}, {"ssc_helps_on_vp"}),
    ("vd/table8", {}, {"ssc_helps_a_unet"}),
    ("vd/table9", {}, {"every_shape_helps"}),
    ("vd/table9", {"method": "MAFM quad_in"}, {"sustained_beats_rapid"}),
]


@pytest.mark.parametrize(("name", "better", "supported"), TABLES)
def test_a_claim_holds_where_its_own_cell_is_the_better_one(
    name: str, better: dict[str, object], supported: set[str]
) -> None:
    """Without `better`, all cells are better than the plain one; a cell that is no better then makes it a no."""
    recipe = read_recipe(name, ["budget=cpu"])
    cells = cells_in(recipe)
    plain = cells[0]

    def judged(lowered: list[dict[str, object]]) -> set[str]:
        rows = [
            {**cell, "network calls": 50, "seed": seed, "frechet/x": (90.0 if cell in lowered else 100.0) + seed}
            for cell in cells
            for seed in range(3)
        ]
        return {key for key, end in recipe.module().judge({"scores": rows}).items() if end.state == "supported"}

    chosen = [cell for cell in cells if cell != plain and better.items() <= cell.items()]
    assert judged(chosen) == supported and judged([]) == set()
    assert better or judged(chosen[1:]) == set()
