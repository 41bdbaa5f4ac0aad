"""`minutes=...` of a recipe: lines that would take longer all train the same share of their steps."""

from __future__ import annotations

from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowexp.cli.recipes import Recipe, minutes, read_recipe
from flowexp.cli.recipes.minutes import Timing, fit_to_minutes, share_of, shortened
from flowexp.cli.recipes.runs import compose_run

LINES = {"FM": ["experiment=digits_fm"], "LCF": ["experiment=digits_lcf"]}
SLOW = Timing(num_steps=1000, seconds_per_step=1.0, startup=10)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Recipe:
    monkeypatch.chdir(tmp_path)
    return Recipe("lcf/fig", tmp_path / "fig.yaml", "gpu", OmegaConf.create({"measuring_as_steps": 100}), minutes=20)


def test_the_share_leaves_time_for_starting_and_for_measuring() -> None:
    share = share_of([SLOW, SLOW], seconds=1200, measuring_as_steps=100)
    takes = sum(2 * each.startup + each.seconds_per_step * (share * each.num_steps + 100) for each in (SLOW, SLOW))
    assert share < 1 and takes == pytest.approx(0.95 * 1200)
    assert share_of([SLOW, SLOW], seconds=1e6, measuring_as_steps=100) == 1


def test_too_few_minutes_are_refused_with_how_many_are_needed() -> None:
    with pytest.raises(ValueError, match=r"minutes=4 is not enough.* take 4\.0 minutes.*at least minutes=8"):
        share_of([SLOW, SLOW], seconds=240, measuring_as_steps=100)
    least = share_of([SLOW, SLOW], seconds=8 * 60, measuring_as_steps=100)
    assert least == pytest.approx(0.1, abs=0.02)


def test_all_lines_are_shortened_alike_and_timed_once(recipe: Recipe, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    timed: list[object] = []
    monkeypatch.setattr(minutes, "timing_of", lambda overrides: timed.append(overrides) or SLOW)
    first, second = fit_to_minutes(recipe, LINES), fit_to_minutes(recipe, LINES)
    assert first == second and len(timed) == 2
    assert "45% of the training steps" in capsys.readouterr().out
    steps = {name: compose_run(overrides).trainer.max_steps for name, overrides in first.items()}
    assert steps["FM"] == steps["LCF"] == round(1000 * (0.95 * 1200 - 40 - 200) / 2000)
    fit_to_minutes(recipe, {"FM": LINES["FM"]})
    assert len(timed) == 3  # other lines need another plan


def test_a_warm_up_in_steps_or_in_epochs_is_shortened_alike() -> None:
    config = compose_run(shortened(["experiment=fashion_fm"], num_steps=3000, share=0.5))
    assert (config.trainer.max_steps, config.lr_schedule.warmup_steps) == (1500, 100)
    config = compose_run(shortened(["experiment=cifar10_fm"], num_steps=11_760, share=0.5))
    schedule = config.lr_schedule
    assert (config.trainer.max_steps, schedule.warmup_epochs, schedule.warmup_steps) == (5880, 6.5, 0)
    assert shortened(["seed=1"], num_steps=10, share=0.5) == ["seed=1", "trainer.max_steps=5"]


def test_a_fast_machine_changes_nothing(recipe: Recipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(minutes, "timing_of", lambda overrides: Timing(1000, 0.01, 5))
    assert fit_to_minutes(recipe, LINES) == LINES


def test_the_gpu_budget_of_figure_4_has_its_promise() -> None:
    assert read_recipe("lcf/fig04", ["budget=gpu"]).minutes == 25
    assert read_recipe("lcf/fig04", ["budget=cpu"]).minutes is None
    assert read_recipe("lcf/fig04", ["budget=cpu", "minutes=12.5"]).minutes == 12.5
    for wrong in ("0", "-1", "soon", "true"):
        with pytest.raises(ValueError, match="minutes is the most"):
            read_recipe("lcf/fig04", [f"minutes={wrong}"])


@pytest.mark.slow
@pytest.mark.usefixtures("runs_in_process")
def test_steps_are_timed_by_a_dry_run() -> None:
    timing = minutes.timing_of(["experiment=digits_fm", "trainer.max_steps=100000"])
    assert timing.num_steps == 100_000 and 0 < timing.seconds_per_step < timing.startup


def test_a_budget_for_a_gpu_is_refused_without_one_before_anything_is_downloaded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    planned = {"num_steps": 9, "seconds_per_step": None, "lacks": "there is no GPU here", "missing_data": "not found"}
    monkeypatch.setattr(minutes, "_dry_run", lambda overrides: (planned, 1.0))
    monkeypatch.setattr(minutes, "build_datamodule", lambda config: pytest.fail("the data were fetched"))
    with pytest.raises(ValueError, match="no step can be tried here: there is no GPU here"):
        minutes.timing_of(["experiment=cifar10_fm", "trainer.accelerator=gpu"])
