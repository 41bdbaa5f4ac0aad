"""The training that a run goes on with, takes further or shares. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig

from flowexp.records.files.json_files import read_object
from flowexp.records.keys import training_key
from flowexp.records.run_folder import UNREADABLE, RunFolder
from flowexp.records.search import find_run, shares_its_training, trainings_below

TO_GO_ON = ("auto", "last")  # values of ckpt


def is_within(ckpt: str | None, folder: Path) -> bool:
    """Whether `ckpt` is a path to the folder or into it."""
    return ckpt not in (None, *TO_GO_ON) and Path(str(ckpt)).absolute().is_relative_to(folder.absolute())


def start_of(config: DictConfig) -> str | None:
    """The checkpoint of another run that a training begins from; None for new weights and for those of this run."""
    if config.ckpt in (None, *TO_GO_ON) or is_within(config.ckpt, Path(config.run_dir)):
        return None
    return os.path.realpath(config.ckpt)


def check_same_training(run: RunFolder, config: DictConfig) -> None:
    """Raises ValueError where the folder holds another training: the run would go on with its checkpoints.

    A longer training may continue a shorter one where `ckpt` allows it, and any where `ckpt` is that folder.
    """
    if is_within(config.ckpt, run.path):
        return
    key = run.trains()
    if run.origin_file.exists() and "adopted" in run.origin():
        raise ValueError(f"run_dir={run.path} holds published weights, which nothing trains on: choose another folder")
    if key in (None, training_key(config)):
        return
    longer = run.is_shorter_than(config)
    if longer and config.ckpt in TO_GO_ON:
        return
    raise ValueError(
        f"run_dir={run.path} holds a run with other training settings, and its checkpoints would be continued: choose "
        f"another folder, or add ckpt={'auto, as it has trained the same for less' if longer else run.path}"
        f"{'' if longer else ' where that is meant'}"
    )


# --- ckpt=auto|last --------------------------------------------------------------------------------------------------


def continue_a_run(config: DictConfig, folder: Path | None, sweep: Path | None) -> bool:
    """`ckpt=auto|last`: go on in the newest run that trains the same, or the same for less; else `auto` starts afresh.

    folder: the one that `run_dir=` gives, in which a run is looked for, and nowhere else. Returns whether there is one.
    """
    if config.ckpt not in TO_GO_ON:
        return False
    if folder is not None:
        run = RunFolder(folder) if RunFolder(folder).trains() is not None else None
        where = f"run in {folder}"
    else:
        run = _best_run(config, sweep)
        where = f"run with these training settings below {config.output_root}"
    if run is None and config.ckpt == "last":
        raise ValueError(
            f"ckpt=last found no {where}: use ckpt=auto to start one, or ckpt=PATH for a certain checkpoint"
        )
    if run is None:
        return False
    if folder is None:
        config.run_dir = str(run.path)
    return True


def _best_run(config: DictConfig, sweep: Path | None) -> RunFolder | None:
    """The newest run of this training, before others one from new weights, of this name; else a shorter one of it."""
    runs = [*trainings_below(Path(config.output_root))]
    key = training_key(config)
    same = [run for run, origin in runs if origin.get("training_key") == key and not shares_its_training(run)]
    if same:
        return min(same, key=lambda run: (_name_of(run) is None, bool(_began(run)), _name_of(run) != config.name))
    shorter = [*_shorter_runs([run for run, _ in runs], config, sweep)]
    mine = next((run for run in shorter if _name_of(run) == config.name), None)
    if mine is None and shorter:
        _point_to(shorter[0])
    return mine


def _shorter_runs(runs: list[RunFolder], config: DictConfig, sweep: Path | None) -> Iterator[RunFolder]:
    """Those of a shorter training that is otherwise this one, but for those of the same sweep: they stay its jobs."""
    jobs = set() if sweep is None else _runs_of_jobs(sweep)
    for run in runs:
        if os.path.realpath(run.path) not in jobs and run.is_shorter_than(config) and not shares_its_training(run):
            yield run


def _runs_of_jobs(sweep: Path) -> set[str]:
    """The folders in which jobs of a sweep have worked or will work."""
    places = [*sweep.rglob("run.json"), *sweep.rglob("job.json")]
    folders = {os.path.realpath(place.parent) for place in places}
    for note in sweep.rglob("job.json"):
        with suppress(OSError, ValueError):
            folders.add(os.path.realpath(str(read_object(note).get("run"))))
    return folders


def _point_to(run: RunFolder) -> None:
    """Names a run that only `ckpt=PATH` takes further, since its name is another."""
    say(f"{run.path} ({_name_of(run)}) trains the same for {run.num_steps()} steps: ckpt={run.path} continues from it")


def describe(config: DictConfig) -> str | None:
    """Which run a training goes on with, in a line; None where it begins in a folder that holds none."""
    run = RunFolder(Path(config.run_dir))
    if not run.origin_file.exists() and not run.checkpoints.exists():
        return None
    name, step, total = _name_of(run), run.trained_step(), run.num_steps()
    other = f", whose name is {name} and not {config.name}" if name not in (None, config.name) else ""
    state = "has not ended its training" if step is None else f"has trained {step} steps"
    more = f" of {total}" if total is not None and total != step else ""
    wanted = run.num_steps(config.trainer)
    longer = f", and trains it on to {wanted}" if wanted is not None and total is not None and total < wanted else ""
    return f"goes on with {run.path}{other}, which {state}{more}{longer}{_began(run)}{_state_of_config(run)}"


def _state_of_config(run: RunFolder) -> str:
    """The message about a run that has lost its config and has, by its `run.json`, the settings of this training."""
    try:
        run.trained_config()
    except (OSError, ValueError):
        return f"; {run.config_file} is {'damaged' if run.config_file.exists() else 'missing'}, and is written anew"
    return ""


def _began(run: RunFolder) -> str:
    with suppress(*UNREADABLE):
        if start := run.origin().get("began_from"):
            return f" (it began from {start})"
    return ""


def _name_of(run: RunFolder) -> Any:
    with suppress(*UNREADABLE):
        return run.config().get("name")
    return None


def say(sentence: str, file: TextIO | None = None) -> None:
    """Prints a line to `file`, by default stdout, once where a launcher has started several processes."""
    if all(os.environ.get(rank, "0") == "0" for rank in ("RANK", "SLURM_PROCID", "LOCAL_RANK")):
        print(sentence, file=file, flush=True)


# --- trained_run -----------------------------------------------------------------------------------------------------


def share_training(config: DictConfig, sweep: Path | None) -> None:
    """Jobs of a sweep that differ only in training-free keys train once: later ones measure the first's checkpoint."""
    if sweep is not None and config.trained_run is None:
        finished = find_run(sweep, training_key(config), trained=True, start=start_of(config))
        is_itself = finished is not None and finished.path.absolute() == Path(config.run_dir).absolute()
        config.trained_run = None if finished is None or is_itself else str(finished.path.absolute())


def check_trained_run(config: DictConfig, run: RunFolder) -> None:
    """Raises ValueError where `trained_run`, which is `run`, has not trained what this run would."""
    if training_key(run.trained_config()) != training_key(config):
        raise ValueError(
            f"trained_run={run.path} was trained with other settings: give those too, or measure it by "
            f"`python -m flowexp.evaluate run={run.path}`"
        )
    origin = run.origin() if run.origin_file.exists() else {}
    if "adopted" in origin:
        raise ValueError(
            f"trained_run={run.path} holds published weights, which these settings have not trained: measure them by "
            f"`python -m flowexp.evaluate run={run.path}`"
        )
    if (start := origin.get("began_from")) != start_of(config):
        raise ValueError(
            f"trained_run={run.path} began from {start or 'new weights'}, and this run would not: measure it by "
            f"`python -m flowexp.evaluate run={run.path}`"
        )
    if not run.has_trained():
        raise ValueError(f"trained_run={run.path} has not finished its training: leave it out, and give ckpt=auto")
    config.trained_run = str(run.path.absolute())
