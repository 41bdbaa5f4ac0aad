"""What recipes share: budgets, runs that are trained once and found again, and a results folder with its protocol."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import Lock
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.cli.composing import Configs
from flowexp.cli.errors import nearest
from flowexp.records import atomic
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.recording import read_history
from flowexp.records.run_folder import (
    UNREADABLE,
    RunFolder,
    measured_while_training,
    measuring_key,
    runs_that_train,
    shares_its_training,
    training_key,
    warn,
)
from flowexp.records.tables import read_csv, write_csv

_composing = Lock()  # Hydra composes one config at a time
_VALUES = {"minutes": "15", "run": "FOLDER"}  # what recipes take that is no switch, with an example
RUNS = Path("outputs/recipes")  # all recipes look for their runs here, so that shared ones are trained once


@dataclass(frozen=True)
class Recipe:
    """A recipe's yaml with the budget that was asked for.

    Arguments:
        name: the yaml's path below experiments/, without suffix, such as lcf/fig04_probe_curve.
        budget: one of the yaml's budgets.
        settings: that budget: `panels`, each with the lines to draw and the overrides to train them with.
        redraw: draw again from the table in `results`, without training.
        missing: keep what the table in `results` has, and add what it lacks.
        minutes: the most that the recipe may take, see experiments/minutes.py; None where nothing is said.
        run: the folder of a run to measure, for a recipe that trains nothing; None is the yaml's.
    """

    name: str
    budget: str
    settings: DictConfig
    redraw: bool = False
    missing: bool = False
    minutes: float | None = None
    run: Path | None = None

    @property
    def results(self) -> Path:
        """Where the figure, the table and the protocol go."""
        return Path("results") / self.name / self.budget


def read_recipe(file: str, arguments: Sequence[str], takes: Sequence[str] = ("redraw",)) -> Recipe:
    """The recipe beside the Python file `file`, with `budget=...` and what else it `takes` from `arguments`."""
    path = Path(file).with_suffix(".yaml")
    config = OmegaConf.load(path)
    given = OmegaConf.from_cli(list(arguments))
    if unknown := set(given) - {"budget", *takes}:
        known = ", ".join(f"{name}={_VALUES.get(name, 'true')}" for name in takes)
        raise SystemExit(f"error: this recipe takes budget=... and {known}, got {', '.join(map(str, unknown))}")
    budget = given.get("budget", "cpu")
    if budget not in config.budgets:
        hint = nearest(str(budget), list(config.budgets))
        raise SystemExit(f"error: there is no budget {budget}{hint}. Choices: {', '.join(config.budgets)}")
    settings = config.budgets[budget]
    minutes = given.get("minutes", settings.get("minutes"))
    if minutes is not None and not (isinstance(minutes, int | float) and minutes > 0):
        raise SystemExit(f"error: minutes is the most that the recipe may take, such as 25, got {minutes}")
    run = next(
        (Path(os.path.expanduser(word.partition("=")[2])) for word in arguments if word.startswith("run=")), None
    )
    if run is not None:
        _check_run(RunFolder(run))
    name = path.relative_to(Path(__file__).parent).with_suffix("")
    switches = {name: _switch(name, given.get(name, False)) for name in takes if name not in _VALUES}
    recipe = Recipe(str(name), budget, settings, minutes=minutes, run=run, **switches)
    if recipe.redraw and not any(recipe.results.glob("*.csv")):
        raise SystemExit(
            f"error: redraw=true draws the table in {recipe.results}, and there is none: leave it out first"
        )
    return recipe


def _switch(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise SystemExit(f"error: {name} must be true or false, got {value}")
    return value


def _check_run(run: RunFolder) -> None:
    """Raises SystemExit where a folder is no run, or its records cannot be read."""
    if not run.config_file.exists():
        raise SystemExit(
            f"error: run={run.path} is no run folder: give the one that a training or `adopt` printed at its end"
        )
    try:
        run.trained_config(), run.origin()
    except (OSError, ValueError) as error:
        raise SystemExit(f"error: {error}") from error


def draw_lines(
    recipe: Recipe, name: str, rows: Callable[[], list[dict[str, Any]]], y: str, series: str, label: str
) -> None:
    """A figure that needs no training: one line for each `series`, `y` over t, as `name`.png and .csv in `results`.

    rows: the table's, not asked for where it is only drawn again. label: what the axis of `y` says.
    """
    table = recipe.results / f"{name}.csv"
    if not recipe.redraw:
        recipe.results.mkdir(parents=True, exist_ok=True)
        write_csv(table, rows())
    figure = plot_curves(read_csv(table), "t", y, series=series, names={"t": "noise level t", y: label})
    save_figure(figure, table.with_suffix(".png"))
    print(f"the {name}: {table.with_suffix('.png')} (and .csv)")


def panel_lines(recipe: Recipe) -> dict[tuple[str, str], list[str]]:
    """The overrides of every line of a recipe that has panels, by panel and label."""
    panels, shared = recipe.settings.panels, recipe.settings.shared
    return {(panel, label): [*own, *shared] for panel, lines in panels.items() for label, own in lines.items()}


def run_of(overrides: Sequence[str]) -> RunFolder:
    """The finished run of `flowexp.train` with these overrides: found where it exists, else trained by the command.

    A run that was trained alike but measured otherwise is measured again, not trained again, unless something is
    measured on the way.
    """
    config = compose_run(overrides)
    training, measuring = training_key(config), measuring_key(config)
    if run := _finished(training, measuring):
        print(f"found {run.path}, trained and measured as needed")
        return run
    begins = _begins_alone(training, measuring) if measured_while_training(config) else _begins(training)
    call("train", [*_in_runs(overrides), *begins])
    run = _finished(training, measuring)
    assert run is not None
    return run


def compose_run(overrides: Sequence[str]) -> DictConfig:
    """The config of `flowexp.train` with these overrides, for a run that recipes share."""
    with _composing:
        return Configs().compose("train", _in_runs(overrides))


def _in_runs(overrides: Sequence[str]) -> list[str]:
    """`overrides`, and where the runs of recipes lie; conf/ lists the group, so Hydra takes no plus before its name."""
    return [f"output_root={RUNS}", *(override.replace("+experiment=", "experiment=") for override in overrides)]


def _begins(training: str) -> list[str]:
    """Where a run that is measured at its end begins: with a finished training, else an unfinished one, else anew."""
    trained = next((run for run in _runs(training) if run.has_trained()), None)
    if trained is not None:
        return [f"trained_run={trained.path}"]
    return _going_on(next((run for run in _runs(training) if not shares_its_training(run)), None))


def _begins_alone(training: str, measuring: str) -> list[str]:
    """The same for one that is measured on the way: only a run that measures the same is gone on with."""
    begun = next((run for run in _runs(training) if _measures(run) == measuring), None)
    return _going_on(begun)


def _going_on(begun: RunFolder | None) -> list[str]:
    """In that run; without its folder, `auto` would also take a shorter run further, which another recipe needs."""
    return [] if begun is None else ["ckpt=auto", f"run_dir={begun.path}"]


def _finished(training: str, measuring: str) -> RunFolder | None:
    same = [run for run in _runs(training) if _measures(run) == measuring]
    return next((run for run in same if run.summary()), None)


def _runs(training: str) -> list[RunFolder]:
    """The runs of a training that began with new weights, the newest first."""
    return [run for run, origin in runs_that_train(RUNS, training) if not origin.get("began_from")]


def _measures(run: RunFolder) -> str | None:
    """`measuring_key` of a run; None where its config cannot be read."""
    try:
        return measuring_key(run.config())
    except UNREADABLE as error:
        warn(f"{error} ({run.path} is passed over)")
        return None


def measurement_of(run: RunFolder, command: str, overrides: Sequence[str]) -> RunFolder:
    """What `flowexp.evaluate` or `flowexp.diagnose` find of a run with these overrides: found, else made by them."""
    key = hashlib.sha256("\n".join(sorted(overrides)).encode()).hexdigest()[:12]
    found = RunFolder(run.path / {"evaluate": "evaluations", "diagnose": "diagnoses"}[command] / key)
    end = None if any(override.startswith("checkpoint=") for override in overrides) else _end_of(run)
    if not found.summary() or (end is not None and found.summary().get("step") != end):
        call(command, [*overrides, f"run={run.path}", f"run_dir={found.path}"])
    return found


def _end_of(run: RunFolder) -> int | None:
    """The step at which the weights of a run were trained; what was measured earlier is of other weights."""
    return run.trained_by().trained_step()


def call(name: str, overrides: Sequence[str]) -> None:
    """Runs `python -m flowexp.NAME` with these overrides, shown first. Raises SystemExit where it fails."""
    command = [sys.executable, "-m", f"flowexp.{name}", *overrides]
    print(f"\n$ python -m {' '.join(command[2:])}", flush=True)
    if (code := subprocess.run(command, env=os.environ, check=False).returncode) != 0:
        raise SystemExit(code)


def measured_rows(run: RunFolder, name: str) -> list[dict[str, Any]]:
    """The table of the last measurement `name` of a run."""
    *_, last = measured_over_steps(run, name).values()
    return last


def measured_over_steps(run: RunFolder, name: str) -> dict[int, list[dict[str, Any]]]:
    """The tables of a run's measurements `name`, by the step at which they were made."""
    steps = [entry["step"] for entry in read_history(run.path) if entry["name"] == name]
    return {step: read_csv(run.path / "measurements" / name / f"step_{step:08d}.csv") for step in steps}


def scores_over_steps(run: RunFolder) -> list[dict[str, Any]]:
    """A row for each time that a run's samples were scored: the step and the scores."""
    scored = [entry for entry in read_history(run.path) if entry["name"].startswith("samples_")]
    return [{"step": entry["step"], **entry["scalars"]} for entry in scored]


def measured_picture(run: RunFolder, name: str) -> Path:
    """The picture of the last measurement `name` of a run."""
    step = max(entry["step"] for entry in read_history(run.path) if entry["name"] == name)
    return run.path / "measurements" / name / f"step_{step:08d}.png"


def protocol_of(run: RunFolder) -> dict[str, Any]:
    """How the numbers of a run came about: settings, measurement protocols, versions, commit and machine.

    Of a run that measured another one's weights, `trained` says where those come from.
    """
    origin, config, trained = run.origin(), run.config(), run.trained_by()
    return {
        "plan": origin["plan"],
        "trained": {key: trained.origin()[key] for key in ("versions", "commit", "machine")},
        "objective": OmegaConf.to_container(config.objective),
        **{key: OmegaConf.to_container(config[key]) for key in ("optimizer", "lr_schedule", "ema")},
        "measured": run.summary()["protocol"],
        "step": run.summary()["step"],
        **{key: origin[key] for key in ("seed", "versions", "commit", "machine")},
    }


def write_protocol(recipe: Recipe, runs: Mapping[str, RunFolder], found: Mapping[str, RunFolder] | None = None) -> None:
    """`protocol.json`: how every line of the recipe came about.

    found: where the lines' numbers come from, if not from the runs themselves.
    """
    content = {label: protocol_of(run) for label, run in runs.items()}
    for label, measurement in (found or {}).items():
        content[label]["measured"] = measurement.summary()["protocol"]
    atomic.write_json(recipe.results / "protocol.json", content)


def markdown_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as a markdown table; whole numbers whole, others to four digits."""
    columns = list(rows[0])
    lines = [columns, *([_shown(row[column]) for column in columns] for row in rows)]
    cells = [[cell.replace("|", r"\|") for cell in line] for line in lines]  # a bare one begins the next cell
    return "".join(f"| {' | '.join(line)} |\n" for line in (cells[0], ["---"] * len(columns), *cells[1:]))


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
    return "" if value is None else str(value)
