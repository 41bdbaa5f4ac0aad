"""Sentences for what a person got wrong on the command line, with the nearest right name."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import ConfigAttributeError, ConfigKeyError, OmegaConfBaseException

from flowexp.cli.composing import Configs, top
from flowexp.cli.overrides import is_override, key_of, read
from flowexp.cli.trainer_keys import INSTEAD, TAKEN
from flowexp.flow.choices import nearest

_PLUGINS = {  # what Hydra calls it, and the package that has it
    "hydra/launcher/submitit_slurm": "hydra-submitit-launcher",
    "hydra/launcher/submitit_local": "hydra-submitit-launcher",
    "hydra/launcher/joblib": "hydra-joblib-launcher",
    "hydra/launcher/ray": "hydra-ray-launcher",
}


_MOVED = {  # keys of earlier versions, and those that took their place
    "optimizer.clip_norm": "trainer.gradient_clip_val",
    "optimizer.ema_decay": "ema.decay",
    "optimizer.ema_warmup": "ema.warmup",
    "optimizer.warmup_steps": "lr_schedule.warmup_steps, with lr_schedule=warmup or cosine",
    "optimizer.warmup_epochs": "lr_schedule.warmup_epochs, with lr_schedule=warmup or cosine",
    **{
        f"logger.{key}": f"logger.wandb.{key}"
        for key in ("project", "entity", "group", "tags", "offline", "connect_seconds")
    },
}
_ADDED = {  # by target, what it takes beyond the keys of its yaml
    "flowexp.backbones.create_backbone": (
        "depth", "width", "heads", "patch", "mlp_ratio", "learn_sigma", "time_scale", "self_conditioning",
    ),
}  # fmt: skip
_MOST_CHOICES = 30  # that are listed in a sentence
_NO_OPTION = (r"Could not find '([^']+)'", r"Cannot find .*'([^']+)'", r"Could not load '([^']+)'")  # Hydra's words


def moved(key: str) -> str | None:
    """The sentence for a key that has another name now; None for any other."""
    return f"{key} is called {_MOVED[key]} now" if key in _MOVED else None


def sentence_for(
    error: BaseException, command: str, arguments: Iterable[str] = (), configs: Configs | None = None
) -> str | None:
    """The message for a user who caused `error` by `arguments`; None where it is a fault of the code.

    configs: what the command line chose from, with None the yamls of `conf/`.
    """
    configs = configs or Configs()
    error = _innermost(error)
    if isinstance(error, ConfigCompositionException) and (key := _quoted(r"Could not override '([^']+)'", error)):
        return _unknown_key(key, command, _config_of(configs, command, arguments), configs)
    if option := next((found for words in _NO_OPTION if (found := _quoted(words, error))), None):
        return _unknown_option(option, configs)
    if group := _quoted(r"Multiple values for (\w+)\.", error):
        return f"there are several values for {group}: give one, and no plus before it, as in {group}=NAME"
    if str(error).startswith("Config group override must be") and (group := _group_of_no_name(arguments, configs)):
        return f"{group} must name one of {', '.join(configs.names(key_of(group)))}"
    if isinstance(error, HydraException | OmegaConfBaseException):
        return _of_hydra(error, command)
    if isinstance(error, OSError) and error.strerror:
        return _refused_by_the_system(error)
    if isinstance(error, ValueError | OSError):
        return str(error)
    if failures := getattr(error, "failures", None):  # of monitors, which are not imported here
        return "; ".join(f"{what} failed: {_in_short(each, command)}" for what, each in failures)
    return _of_a_library(error)


def _in_short(error: BaseException, command: str) -> str:
    """The sentence for an error, or its kind and first line where there is none."""
    lines = str(error).splitlines() or [""]
    return sentence_for(error, command) or f"{type(error).__name__}: {lines[0]}"


def _group_of_no_name(arguments: Iterable[str], configs: Configs) -> str | None:
    """The argument that gives a group no name, such as sampler=null."""
    given = [argument for argument in arguments if is_override(argument) and configs.is_group(key_of(argument))]
    return next((each for each in given if not isinstance(read([each])[0].value(), str | list | dict)), None)


def _of_hydra(error: BaseException, command: str) -> str:
    """An error of Hydra or OmegaConf as one sentence, with the remedy where there is one."""
    text = " ".join(str(error).split())
    if isinstance(error, ConfigAttributeError | ConfigKeyError) and (key := _quoted(r"full_key: (\S+)", error)):
        return (
            f"the config has no key {key}: it was left out, or the run is of another version of flowexp, which its "
            "run.json names"
        )
    if key := _quoted(r"Missing mandatory value: (\S+)", error):
        key = _quoted(r"full_key: (\S+)", error) or key
        return f"{key} is needed: give {key}=..., which `python -m flowexp.{command} --help` explains"
    if match := re.search(r"Ambiguous value for argument '([^=]+)=(.*)' 1\.", text):
        key, value = match[1].lstrip("+"), match[2]
        return f"{key}={value} are several values: add -m to sweep over them, or write '{key}=[{value}]' for a list"
    if key := _quoted(r"An item is already at '([^']+)'", error):
        return f"there is a key {key} already: leave the plus out, or give two, ++{key}=..., where not all have it"
    if "Error resolving interpolation '${data}'" in text:
        return (
            "data cannot be left out: choose data=NAME; a yaml of your own beside parts=FOLDER is one (docs/new_idea)"
        )
    if key := _quoted(r"Could not delete from config\. '([^']+)'", error):
        return f"there is no key {key} to leave out: `python -m flowexp.{command} --help` shows all keys"
    return text


def _innermost(error: BaseException) -> BaseException:
    """Hydra wraps what a constructor raises; the sentence of the constructor is the better one."""
    while isinstance(error, InstantiationException) and error.__cause__ is not None:
        error = error.__cause__
    return error


def _refused_by_the_system(error: OSError) -> str:
    """`cannot read or write outputs/x: permission denied`, with both names where there are two."""
    names = " to ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"cannot read or write {names or 'a file'}: {str(error.strerror).lower()}"


def _of_a_library(error: BaseException) -> str | None:
    """Faults of a person or a machine that Lightning and torch have exceptions for; neither is imported here."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "MisconfigurationException" in kinds:
        return f"Lightning cannot train so: {' '.join(str(error).split())}"
    if "Could not detect" in str(error) and "srun" in str(error):  # of submitit
        return "no srun here: start the sweep on a login node of the cluster, or take hydra/launcher=submitit_local"
    if isinstance(error, MemoryError) or "t allocate memory" in str(error):
        return f"this machine has too little memory ({' '.join(str(error).split()[-12:])}): lower a size or the batch"
    if "OutOfMemoryError" in kinds:
        return (
            "the device has too little memory: lower data.batch_size (trainer.accumulate_grad_batches keeps what an "
            "optimizer step sees), or the batch_size of what was being measured or sampled"
        )
    if key := _quoted(r"DistributedDataParallel.__init__\(\) got an unexpected keyword argument '(\w+)'", error):
        return f"there is no key strategy.{key}: DistributedDataParallel of torch takes none of that name"
    if isinstance(error, RuntimeError) and str(error).startswith("Error(s) in loading state_dict"):
        return f"the checkpoint is of another network than this config's: {str(error).split(chr(10))[1].strip()}"
    return None


def _quoted(pattern: str, error: BaseException) -> str | None:
    found = re.search(pattern, str(error))
    return found.group(1) if found else None


def check_added(command: str, overrides: Iterable[str], configs: Configs) -> None:
    """Raises ValueError for `+key=value` where nothing reads it: a slip of the keyboard, or a key of another command.

    A value that others refer to is not one: `+width=64 backbone.width=${width}`.
    """
    said = [*overrides]
    added = [each for each in read(said) if each.is_add() or each.is_force_add()]
    unread = [each for each in added if not any(f"${{{each.key_or_group}}}" in text for text in said)]
    known = configs.keys(command) if unread else set()
    for override in unread:
        first = top(override.package or override.key_or_group)
        if first not in known:
            hint = f": flowexp.{command} has no {first}." if configs.is_group(first) else nearest(first, known)
            help_ = f"`python -m flowexp.{command} --help` shows all keys"
            raise ValueError(f"nothing reads {override.input_line}{hint or ': leave it out.'} {help_}")


def _unknown_key(key: str, command: str, config: DictConfig, configs: Configs) -> str:
    """Names other choices of its group that have it; else the nearest key of `config`, by its last part or whole."""
    if sentence := moved(key):
        return sentence
    known = list(_keys(config))
    if key in known and configs.is_group(key):
        return f"{key} has other keys: put a plus before it to add these, as in +{key}={{...}}, or choose {key}=NAME"
    group, _, last = key.rpartition(".")
    if configs.is_group(top(key)) and top(key) not in configs.keys(command):
        return f"there is no key {key}: flowexp.{command} has no {top(key)}"
    if group == "trainer" and "trainer" in config and last in {**INSTEAD, **dict.fromkeys(TAKEN)}:
        return _key_of_the_trainer(last)
    if (target := _target_of(config, group)) and last in _ADDED.get(target, ()):
        return (
            f"{key} is not among the keys of its yaml: add it with a plus, +{key}=..., with two where not all have it"
        )
    inside = [name for name in known if name.rpartition(".")[0] == group]
    if others := [f"{group}={name}" for name in configs.names(group) if group and _has_key(configs, group, name, last)]:
        hint = f", which {' or '.join(others)} has."
    else:
        outermost = sorted(known, key=lambda name: name.count("."))
        same = next((name for name in outermost if name.rpartition(".")[2] == last), None)
        hint = nearest(last, [name.rpartition(".")[2] for name in inside]) if inside else nearest(key, known)
        hint = f"; did you mean {same}?" if same and not (group and inside) else hint
        listed = ", ".join(name.rpartition(".")[2] for name in inside if "._" not in name)
        hint = (hint or ".") + (f" {group} has {listed}." if group and listed else "")
    return f"there is no key {key}{hint} `python -m flowexp.{command} --help` shows all keys"


def _key_of_the_trainer(key: str) -> str:
    """What to write for an argument of Lightning's Trainer that conf/trainer does not list."""
    if key in INSTEAD:
        return f"trainer.{key} is not taken: {INSTEAD[key]}"
    return f"trainer.{key} is not among the keys of its yaml: add it with a plus, +trainer.{key}=..."


def _target_of(config: DictConfig, group: str) -> str | None:
    node = OmegaConf.select(config, group) if group else None
    return str(node.get("_target_")) if isinstance(node, DictConfig) else None


def _has_key(configs: Configs, group: str, name: str, key: str) -> bool:
    """Whether the yaml of a choice has a line for a key."""
    file = configs.file(group, name)
    return file is not None and re.search(rf"^ *{re.escape(key)}:", file.read_text(), re.MULTILINE) is not None


def _unknown_option(option: str, configs: Configs) -> str:
    if option in _PLUGINS:
        group, _, name = option.rpartition("/")
        return f"{group}={name} needs a package: pip install {_PLUGINS[option]}"
    group, _, name = option.rpartition("/")
    choices = configs.names(group)
    hint = f"there is no {group or 'config'} named {name}{nearest(name, choices) or '.'}"
    if len(choices) <= _MOST_CHOICES:
        return f"{hint} Choices: {', '.join(choices)}"
    near = difflib.get_close_matches(name, choices, n=5, cutoff=0.3) or choices[:5]
    return f"{hint} Some of {len(choices)} choices: {', '.join(near)}; --help lists them all"


def _config_of(configs: Configs, command: str, arguments: Iterable[str]) -> DictConfig:
    """The config with the groups chosen in `arguments`, whose keys they are, and all else by default."""
    given = [argument for argument in arguments if is_override(argument) and configs.is_group(key_of(argument))]
    chosen = [argument for argument in given if not _is_sweep(argument)]
    try:
        return configs.compose(command, chosen)
    except HydraException:  # a name that is wrong too
        return configs.compose(command)


def _is_sweep(argument: str) -> bool:
    return any(override.is_sweep_override() for override in read([argument]))


def _keys(config: Any, prefix: str = "") -> Iterable[str]:
    for key in config:
        name = f"{prefix}{key}"
        yield name
        if not OmegaConf.is_missing(config, key) and isinstance(child := config._get_node(key), DictConfig) and child:
            yield from _keys(child, f"{name}.")
