"""What a composed config leaves open: the run's folder, and the run that it goes on with, shares or measures."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.errors import nearest
from flowexp.going_on import (
    check_same_training,
    check_trained_run,
    continue_a_run,
    describe,
    say,
    share_training,
)
from flowexp.processes import check_processes, check_sweeps_alone, name_in_common
from flowexp.runs import RunFolder

_OF_A_RUN = ("sample", "evaluate", "diagnose")
_NAMES = (
    "run_dir", "output_root", "name", "run", "checkpoint", "guide", "guide_checkpoint", "ckpt", "trained_run", "output",
    "file",
)  # fmt: skip
_MAY_BE_NULL = ("run", "checkpoint", "guide", "guide_checkpoint", "ckpt", "trained_run")


def settle(command: str, config: DictConfig, sweep: Path | None) -> DictConfig:
    """Decides the run's folder, and for a training run what it continues or whose training it shares.

    sweep: the folder of the sweep whose job this is.
    """
    with open_dict(config):
        _keep_names(config)
        _check_names(command, config, sweep)
        if command in _OF_A_RUN:
            _take_from_run(config)  # first: the folder lies in that of the run
        is_settled = _settle_folder(command, config, sweep)
        if command == "train":
            given = Path(config.run_dir) if sweep is None and _is_given("run_dir") else None
            is_settled = continue_a_run(config, given, sweep) or is_settled
            share_training(config, sweep)
            if config.trained_run is not None:
                check_trained_run(config, RunFolder(_existing_run(Path(config.trained_run))))
        check_processes(command, config)
        _check_folder(command, config)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # raises before there is a folder
        if not is_settled:
            config.run_dir = str(unused_folder(Path(config.run_dir)))
        if command == "train" and config.trained_run is None and (line := describe(config)):
            say(line)
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(resolved, DictConfig)
        return resolved


def _keep_names(config: DictConfig) -> None:
    """Folders and files have names, also where these look like numbers: `run_dir=2026_11` is no 202611."""
    for override in HydraConfig.get().overrides.task:
        key, _, text = override.lstrip("+").partition("=")
        if key in _NAMES and isinstance(config.get(key), bool | int | float):
            config[key] = text


def _check_names(command: str, config: DictConfig, sweep: Path | None) -> None:
    """Raises ValueError for a name that is empty, as an unset variable of a script leaves it, or leads elsewhere."""
    given = OmegaConf.to_container(config)  # not resolved: run_dir may refer to a run that is still to be found
    assert isinstance(given, dict)
    for key, value in ((key, given[key]) for key in _NAMES if key in given):
        is_open = key in _MAY_BE_NULL or (key == "name" and command not in ("train", "adopt"))
        if (value is None and not is_open) or (isinstance(value, str) and not value.strip()):
            raise ValueError(f"{key} is {'null' if value is None else 'empty'}: give a name, or leave {key} out")
    if command in ("train", "adopt") and sweep is None and not _is_given("run_dir"):
        root = os.path.abspath(config.output_root)
        if not (place := os.path.abspath(os.path.join(root, config.name))).startswith(os.path.join(root, "")):
            raise ValueError(
                f"name={config.name} must name a folder below output_root={config.output_root}, and leads to {place}: "
                "choose another name, or give run_dir=FOLDER"
            )


# --- the folder ------------------------------------------------------------------------------------------------------


def _settle_folder(command: str, config: DictConfig, sweep: Path | None) -> bool:
    """Decides the folder where something other than the moment does; False where `run_dir` names it by the moment."""
    if sweep is not None:
        config.run_dir = HydraConfig.get().runtime.output_dir
        return True
    if _is_given("run_dir"):
        return True
    if command == "encode" or (name := name_in_common()) is None:  # encoding shares no folder but the output's
        return False
    config.run_dir = str(Path(config.run_dir).with_name(name))
    return True


def _is_given(key: str) -> bool:
    """Whether the command line says `key=`."""
    return any(override.lstrip("+").startswith(f"{key}=") for override in HydraConfig.get().overrides.task)


def unused_folder(path: Path) -> Path:
    """Makes the folder `path`, or one beside it with a number: two runs may start in the same second."""
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _check_folder(command: str, config: DictConfig) -> None:
    """Raises ValueError for a folder that holds something else: its config would be written over.

    A training run starts from what its folder has, so the folder of another training is refused, unless `ckpt` is that
    folder.
    """
    run = RunFolder(Path(config.run_dir))
    if command != "train":
        if run.origin_file.exists():
            raise ValueError(f"run_dir={run.path} holds a training run: choose another folder for what this one writes")
    elif run.origin_file.exists() or run.checkpoints.exists():
        check_same_training(run, config)
    elif run.config_file.exists() and "run" in (other := run.config()):
        raise ValueError(f"run_dir={run.path} holds what was measured of {other.run}: choose another folder")


def check_sweep(arguments: Sequence[str]) -> None:
    """Raises ValueError where each of several processes would sweep on its own, or all jobs would share a folder."""
    check_sweeps_alone()
    for folder in (argument.partition("=")[2] for argument in arguments if argument.startswith("run_dir=")):
        raise ValueError(
            f"run_dir={folder} cannot be the folder of every job of a sweep: give hydra.sweep.dir={folder}, in which "
            "each has its own"
        )


# --- a run that is measured ------------------------------------------------------------------------------------------


def _take_from_run(config: DictConfig) -> None:
    """Commands on a run keep its sampler but for what is said: `ssc=` changes its scale, `sampler=` all of it."""
    if OmegaConf.is_missing(config, "run"):
        config.run = str(_run_with(config.checkpoint))
    trained = RunFolder(_existing_run(Path(config.run))).trained_config()
    config.run = str(Path(config.run).absolute())
    overrides = list(HydraConfig.get().overrides.task)
    chosen = {override.split("=")[0] for override in overrides}
    if "sampler" not in chosen:
        said = OmegaConf.from_dotlist([override for override in overrides if override.startswith("sampler.")])
        scale = {key: config.sampler[key] for key in ("s0", "s1", "profile")} if "ssc" in chosen else {}
        config.sampler = OmegaConf.merge(trained.sampler, scale, said.get("sampler", {}))
    if config.get("name", "") is None:
        config.name = trained.get("name")


def _run_with(checkpoint: str | None) -> Path:
    """The folder of the run that a checkpoint lies in."""
    if checkpoint is None:
        raise ValueError(
            "run is needed: the folder of a training run, as in run=outputs/digits_fm/<date>, or checkpoint=FILE in it"
        )
    run = Path(checkpoint).absolute().parent.parent
    if not RunFolder(run).config_file.exists():
        raise ValueError(
            f"{checkpoint} lies in no run's folder: add run=FOLDER, or make a run of published weights by "
            f"`python -m flowexp.adopt file={checkpoint} +experiment=NAME`"
        )
    return run


def _existing_run(path: Path) -> Path:
    """`path`; raises ValueError with the nearest run beside it where there is no such folder."""
    if not path.exists():
        beside = next(parent for parent in path.absolute().parents if parent.exists())
        known = [config.parent for depth in ("*", "*/*") for config in beside.glob(f"{depth}/config.yaml")]
        names = {str(run.relative_to(beside)): run for run in known}
        hint = nearest(str(path.absolute().relative_to(beside)), names)
        raise ValueError(f"there is no run {path}{hint or ': give the folder that a training run printed at its end'}")
    return path
