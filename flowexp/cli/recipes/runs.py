"""Runs that recipes share: trained once by the command line, and found again by their settings."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Lock
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.cli import warm_starts
from flowexp.cli.composing import Configs
from flowexp.records.files.fingerprint import sha256_of
from flowexp.records.keys import measured_while_training, measuring_key, training_key
from flowexp.records.run_folder import UNREADABLE, RunFolder, warn
from flowexp.records.search import runs_that_train, shares_its_training

RUNS = Path("outputs/recipes")  # all recipes look for their runs here, so that shared ones are trained once
_composing = Lock()  # Hydra composes one config at a time


def run_of(
    overrides: Sequence[str], train: Callable[[list[str]], None] | None = None, tell: Callable[[str], None] = print
) -> RunFolder:
    """The finished run of `flowexp.train` with these overrides: found where it exists, else trained by the command.

    A run that was trained alike but measured otherwise is measured again, not trained again, unless something is
    measured on the way.

    Arguments:
        train: runs the command with its overrides; None shows it, and all that it prints.
        tell: shows which run is there already.
    """
    config = compose_run(overrides)
    training, measuring = training_key(config), measuring_key(config)
    if run := _finished(training, measuring):
        tell(f"found {run.path}, trained and measured as needed")
        return run
    begins = _begins_alone(training, measuring) if measured_while_training(config) else _begins(training)
    words = [*_in_runs(overrides), *begins]
    train(words) if train else call("train", words)
    run = _finished(training, measuring)
    assert run is not None
    return run


def seeded(seed: int) -> list[str]:
    """What a run of that seed says; the first says nothing, so that it is the run without."""
    return [f"seed={seed}"] if seed else []


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
    key = sha256_of("\n".join(sorted(overrides)).encode(), digits=12)
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
    print(f"\n$ python -m flowexp.{name} {' '.join(overrides)}", flush=True)
    if (code := warm_starts.run_process(f"flowexp.{name}", overrides)) != 0:
        raise SystemExit(code)


def protocol_of(run: RunFolder) -> dict[str, Any]:
    """How the numbers of a run came about: settings, measurement protocols, versions, commit and machine.

    Of a run that measured another one's weights, `trained` says where those come from. Weights that came from
    elsewhere, adopted or of the zoo, have measured nothing themselves.
    """
    origin, config, trained, ended = run.origin(), run.config(), run.trained_by(), run.summary()
    return {
        "plan": origin.get("plan"),
        "trained": {key: trained.origin()[key] for key in ("versions", "commit", "machine")},
        "objective": OmegaConf.to_container(config.objective),
        **{key: OmegaConf.to_container(config[key]) for key in ("optimizer", "lr_schedule", "ema")},
        "measured": ended.get("protocol", {}),
        "step": ended.get("step", trained.trained_step()),
        **{key: origin[key] for key in ("seed", "versions", "commit", "machine")},
    }
