"""`minutes=...` of a recipe: the most that it may take. On a machine too slow for that, all lines train fewer steps.

Each line's steps are timed by a dry run. Where the whole would take longer, every line trains the same share of its
steps, and of its warm-up: a curve never ends earlier than the one it is compared with. The share is kept beside the
results, so that a recipe which is started again goes on with the same runs.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from flowexp.cli.assembly.building import build_datamodule
from flowexp.cli.recipes.recipe import Recipe
from flowexp.cli.recipes.runs import call, compose_run
from flowexp.data import DataError
from flowexp.records.files import atomic
from flowexp.records.files.json_files import read_object
from flowexp.records.run_folder import RunFolder

SPARE = 0.05  # of the minutes: what no plan knows
LEAST = 0.01  # of the steps: fewer learn nothing


@dataclass(frozen=True)
class Timing:
    """What a line takes on this machine.

    Arguments:
        num_steps: the training steps that the budget wants.
        seconds_per_step: what one takes.
        startup: seconds until the steps run, and what a dry run takes: imports, data, compilation.
    """

    num_steps: int
    seconds_per_step: float
    startup: float


def fit_to_minutes(recipe: Recipe, lines: Mapping[str, Sequence[str]]) -> dict[str, list[str]]:
    """The overrides of each line, changed where `recipe.minutes` would not be enough for all of them.

    Raises ValueError where they are too few for even a hundredth of the steps.
    """
    asked, plan = {name: list(overrides) for name, overrides in lines.items()}, recipe.results / "minutes.json"
    if recipe.minutes is None:
        return asked
    known = _known(plan)
    if (known.get("minutes"), known.get("lines")) != (recipe.minutes, asked):
        timings = {name: timing_of(overrides) for name, overrides in asked.items()}
        measuring = recipe.settings.get("measuring_as_steps", 0)
        share = share_of([*timings.values()], 60 * recipe.minutes, measuring)
        known = {"minutes": recipe.minutes, "lines": asked, "share": share,
                 "timings": {name: asdict(timing) for name, timing in timings.items()}}  # fmt: skip
        recipe.results.mkdir(parents=True, exist_ok=True)
        atomic.write_json(plan, known)
    print(f"\n{sentence_of(known)} ({plan})", flush=True)
    steps = {name: timing["num_steps"] for name, timing in known["timings"].items()}
    return {name: shortened(said, steps[name], known["share"]) for name, said in asked.items()}


def _known(plan: Path) -> dict[str, Any]:
    """What an earlier start of the recipe decided; nothing where there was none, or its file is damaged."""
    try:
        known = read_object(plan)
    except (OSError, ValueError):
        return {}
    return known if {"share", "timings"} <= {*known} else {}


def timing_of(overrides: Sequence[str]) -> Timing:
    """What a line takes, by a dry run; its data are downloaded first where they are not here.

    Raises ValueError where no step can be tried on this machine.
    """
    planned, seconds = _dry_run(overrides)
    if planned["missing_data"] and not planned["lacks"]:
        try:
            build_datamodule(compose_run(overrides))
        except DataError as error:
            raise ValueError(str(error)) from error
        planned, seconds = _dry_run(overrides)
    if planned["seconds_per_step"] is None:
        raise ValueError(f"no step can be tried here: {planned['lacks']}")
    return Timing(planned["num_steps"], planned["seconds_per_step"], seconds)


def _dry_run(overrides: Sequence[str]) -> tuple[dict[str, Any], float]:
    """A dry run's `plan.json`, and the seconds that it took."""
    with TemporaryDirectory() as folder:
        began = time.perf_counter()
        call("train", [*overrides, "dry_run=true", f"run_dir={folder}"])
        seconds = time.perf_counter() - began
        return json.loads(RunFolder(Path(folder)).plan_file.read_text()), seconds


def share_of(timings: Sequence[Timing], seconds: float, measuring_as_steps: float) -> float:
    """The share of their steps, at most 1, that lines which train one after the other can train in `seconds`.

    measuring_as_steps: what is measured after training takes each line as long as so many of its steps.

    Raises ValueError where it is below `LEAST`.
    """
    startup = 2 * sum(timing.startup for timing in timings)  # of the dry runs, and of the runs
    measuring = measuring_as_steps * sum(timing.seconds_per_step for timing in timings)
    training = sum(timing.seconds_per_step * timing.num_steps for timing in timings)
    share = min(1.0, ((1 - SPARE) * seconds - startup - measuring) / training)
    if share < LEAST:
        others = startup + measuring
        least = (others + 0.1 * training) / (1 - SPARE) / 60
        raise ValueError(
            f"minutes={seconds / 60:g} is not enough: starting and measuring take {others / 60:.1f} minutes on "
            f"this machine. Give at least minutes={least:.0f}, for a tenth of the training steps"
        )
    return share


def sentence_of(known: Mapping[str, Any]) -> str:
    """What was decided, for the one who waits."""
    if known["share"] == 1:
        return f"minutes={known['minutes']:g} is enough for all training steps"
    return (
        f"minutes={known['minutes']:g} is enough for {known['share']:.0%} of the training steps on this machine: every "
        "line trains so many, and its warm-up is shortened alike"
    )


def shortened(overrides: Sequence[str], num_steps: int, share: float) -> list[str]:
    """A line's overrides for `share` of its steps and of its warm-up."""
    if share == 1:
        return list(overrides)
    schedule = compose_run(overrides).lr_schedule
    warmup = [f"lr_schedule.warmup_epochs={share * epochs:.4g}"] if (epochs := schedule.get("warmup_epochs")) else []
    if steps := schedule.get("warmup_steps"):
        warmup.append(f"lr_schedule.warmup_steps={round(share * steps)}")
    return [*overrides, f"trainer.max_steps={round(share * num_steps)}", *warmup]
