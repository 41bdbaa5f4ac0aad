"""What a composed config leaves open: the run's folder, and the run that it goes on with, shares or measures."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path

from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.cli.composing import config_folder
from flowexp.cli.continuation import (
    check_same_training,
    check_trained_run,
    continue_a_run,
    describe,
    say,
    share_training,
)
from flowexp.cli.errors import moved
from flowexp.cli.launcher_ranks import check_processes, check_sweeps_alone, name_in_common
from flowexp.cli.overrides import last_of, read
from flowexp.cli.trainer_keys import check_trainer
from flowexp.flow.choices import nearest
from flowexp.records.run_folder import RunFolder

OF_A_RUN = ("sample", "evaluate", "diagnose", "export")
_DDP = "pytorch_lightning.strategies.DDPStrategy"
_FOLDERS = {  # keys that name a folder or a file, and whether they may be left open
    "run_dir": False, "output_root": False, "run": False, "output": False, "file": False, "checkpoint": True,
    "to": False, "autoencoder": True, "guide": True, "guide_checkpoint": True, "ckpt": True, "trained_run": True,
    "parts": True, "init": True,
}  # fmt: skip


def settle(command: str, config: DictConfig, sweep: Path | None) -> DictConfig:
    """Decides the run's folder, and for a training run what it continues or whose training it shares.

    sweep: the folder of the sweep whose job this is.
    """
    with open_dict(config):
        if command in ("train", "adopt") and "terms" not in config:  # terms=[]
            config.terms = {}
        _check_names(command, config)
        _check_that_all_is_read(config)
        if config.parts is not None:
            config.parts = str(Path(config.parts).absolute())
        if command in OF_A_RUN:
            _take_from_run(config)  # first: the folder lies in that of the run
        is_settled = _settle_folder(command, config, sweep)
        if command == "adopt" and config.init is not None:
            raise ValueError(f"init={config.init} is where a training begins, and adopt trains nothing: leave it out")
        if command == "train":
            _settle_init(config)
            check_trainer(config.trainer)
            _check_sharding(config)
            given = Path(config.run_dir) if sweep is None and _is_given("run_dir") else None
            is_settled = continue_a_run(config, given, sweep) or is_settled
            share_training(config, sweep)
            if config.trained_run is not None:
                check_trained_run(config, RunFolder(_existing_run(Path(config.trained_run), "trained_run")))
        check_processes(command, config)
        if is_settled:  # one that the moment names is made anew, also where a run of the same second has the name
            _check_folder(command, config)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # raises before there is a folder
        if not is_settled:
            config.run_dir = str(unused_folder(Path(config.run_dir)))
        if command == "train" and config.trained_run is None and (line := describe(config)):
            say(line)
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(resolved, DictConfig)
        return resolved


# --- the command line -------------------------------------------------------------------------------------------------


def _said() -> list[Override]:
    """The overrides of this job."""
    return read(HydraConfig.get().overrides.task)


def _is_given(key: str) -> bool:
    """Whether the command line sets `key`."""
    override = last_of(key, HydraConfig.get().overrides.task)
    return override is not None and not override.is_delete()


def _check_names(command: str, config: DictConfig) -> None:
    """Raises ValueError for a folder, file or name that is none: an unset variable of a script leaves it empty."""
    for key, may_be_open in _FOLDERS.items():
        if key == "checkpoint" and command not in OF_A_RUN:  # there it is how often a run is saved
            continue
        if key in config and not OmegaConf.is_missing(config, key) and not OmegaConf.is_interpolation(config, key):
            _check_name(key, config[key], may_be_open)
    if command in ("train", "adopt"):
        _check_name("name", config.name, may_be_open=False)
        if not Path(config.name).name or Path(config.name).is_absolute() or ".." in Path(config.name).parts:
            raise ValueError(f"name must stay below output_root, got {config.name}: give another folder by output_root")


def _check_name(key: str, value: object, may_be_open: bool) -> None:
    what = "names a run" if key == "name" else "names a file or a folder"
    if isinstance(value, str) and not value.strip():
        raise ValueError(f"{key} {what}, and is empty: give a name, or leave {key}= out")
    if not isinstance(value, str) and not (value is None and may_be_open):
        raise ValueError(f"{key} {what}, and must be a word; got {'null' if value is None else value}")


def _check_that_all_is_read(config: DictConfig) -> None:
    """Raises ValueError for a setting of the command line of something that is not chosen: it would do nothing."""
    for override in _said():
        _check_that_none_is_twice(override)
        top, *below = override.key_or_group.split(".")
        place = ".".join([top, *below[:1]]) if top in ("callbacks", "terms", "logger") else top
        if override.is_delete() or not below or top not in ("callbacks", "terms", "logger", "data", "strategy"):
            continue
        if sentence := moved(override.key_or_group):
            raise ValueError(sentence)
        node = OmegaConf.select(config, place)
        if place != override.key_or_group and isinstance(node, DictConfig) and "_target_" not in node:
            name = place.rpartition(".")[2]
            hint = f"{top}={'NAME' if top in ('data', 'strategy') else name}"
            raise ValueError(f"{override.input_line} sets what is not chosen, and would do nothing: add {hint}")


def _check_that_none_is_twice(override: Override) -> None:
    """Raises ValueError for a group that is given one name twice, which would count once."""
    names = override.value()
    if override.key_or_group not in ("callbacks", "terms") or not isinstance(names, list):
        return
    if twice := [name for place, name in enumerate(names) if name in names[:place]]:
        raise ValueError(f"{override.input_line} names {twice[0]} twice: give it once")


# --- the folder ------------------------------------------------------------------------------------------------------


def _settle_folder(command: str, config: DictConfig, sweep: Path | None) -> bool:
    """Decides the folder where something other than the moment does; False where `run_dir` names it by the moment."""
    if sweep is not None:
        config.run_dir = HydraConfig.get().runtime.output_dir
        return True
    if _is_given("run_dir") or command == "export":
        return True
    if command == "encode" or (name := name_in_common()) is None:  # encoding shares no folder but the output's
        return False
    config.run_dir = str(Path(config.run_dir).with_name(name))
    return True


def _settle_init(config: DictConfig) -> None:
    """Names what `init` points to from the root. Raises ValueError where there is nothing, or `ckpt` says it too."""
    if config.init is None or config.init.startswith(("hub:", "zoo:")):
        return
    if config.ckpt not in (None, "auto", "last"):
        raise ValueError(f"init={config.init} and ckpt={config.ckpt} both name weights to begin from: give one of them")
    if config.ckpt is None and not Path(config.init).exists():  # a run that goes on has its weights
        raise ValueError(f"init={config.init} is not there: give a run, an export, a file of weights, or hub:NAME")
    config.init = str(Path(config.init).absolute())


def _check_sharding(config: DictConfig) -> None:
    """Raises ValueError for sharded checkpoints where no process has a share; other strategies answer themselves."""
    if config.checkpoint.get("sharded") and config.strategy.get("_target_") in (None, _DDP):
        raise ValueError(
            "checkpoint.sharded=true has each process write its share of the weights, which only strategy=fsdp splits: "
            "add strategy=fsdp, or leave it out"
        )


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
    """Raises ValueError where several processes would each start the sweep, or all jobs would share a folder."""
    check_sweeps_alone()
    if (override := last_of("run_dir", arguments)) is not None and not override.is_sweep_override():
        folder = str(override.value())
        raise ValueError(
            f"run_dir={folder} cannot be the folder of every job of a sweep: give hydra.sweep.dir={folder}, in which "
            "each has its own"
        )


# --- a run that is measured ------------------------------------------------------------------------------------------


def _take_from_run(config: DictConfig) -> None:
    """Commands on a run take its sampler with the overrides: `ssc=` changes its scale, `sampler=` all of it."""
    if OmegaConf.is_missing(config, "run"):
        config.run = str(_run_with(config.checkpoint))
    trained = RunFolder(_existing_run(Path(config.run))).trained_config()
    config.run = str(Path(config.run).absolute())
    groups = {each.key_or_group for each in _said() if not isinstance(each.value(), dict) and not each.is_delete()}
    if any(each.is_delete() and each.key_or_group == "sampler" for each in _said()):
        raise ValueError("~sampler would leave no sampler: without it the run's own is taken")
    if "sampler" not in groups:
        scale = {key: config.sampler[key] for key in ("s0", "s1", "profile")} if "ssc" in groups else {}
        config.sampler = OmegaConf.merge(trained.sampler, scale)
        _change(config, [override for override in _said() if override.key_or_group.partition(".")[0] == "sampler"])
    _check_sampler(config.sampler)
    if config.get("name", "") is None:
        config.name = trained.get("name")


def _change(config: DictConfig, said: list[Override]) -> None:
    """Apply the command line, as Hydra would have, had it composed with these values."""
    for override in said:
        if not override.is_delete():
            OmegaConf.update(config, override.key_or_group, override.value(), merge=True, force_add=True)
            continue
        group, _, key = override.key_or_group.rpartition(".")
        if key not in (node := OmegaConf.select(config, group) or {}):
            raise ValueError(f"there is no key {override.key_or_group} to leave out")
        del node[key]


def _check_sampler(sampler: DictConfig) -> None:
    """Raises ValueError for a key that no sampler has."""
    known = [str(key) for key in OmegaConf.load(config_folder() / "sampler" / "euler.yaml")]
    for key in map(str, sampler):
        if key not in known:
            hint = nearest(key, known) or f": it has {', '.join(known[1:])}"
            raise ValueError(f"there is no key sampler.{key}{hint}")


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
            f"`python -m flowexp.adopt {shlex.quote(f'file={checkpoint}')} +experiment=NAME`"
        )
    return run


def _existing_run(path: Path, key: str = "run") -> Path:
    """`path`; raises ValueError with the nearest run beside it where there is no such folder."""
    if not path.exists():
        beside = next(parent for parent in path.absolute().parents if parent.exists())
        known = [config.parent for depth in ("*", "*/*") for config in beside.glob(f"{depth}/config.yaml")]
        names = {str(run.relative_to(beside)): run for run in known}
        hint = nearest(str(path.absolute().relative_to(beside)), names)
        hint = hint or ": give the folder that a training run printed at its end"
        several = ", or add -m for several" if "," in str(path) else ""
        named = "" if key == "run" else f"{key}: "
        raise ValueError(f"{named}there is no run {path}{hint}{several}")
    return path
