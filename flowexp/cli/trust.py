"""What a config may build: the parts of flowexp, and what the command line names. A stored config is data, no program.

Hydra calls whatever a `_target_` names with the keys beside it. Allowed are the targets of the yamls in `conf/`, the
optimizers and schedules of torch, and what the command line of this very command vouches for: a target that it spells
out, the targets in the yamls of a folder that it names (`--config-dir`, or `conf/` in `parts=FOLDER`), and what is
defined in the Python files of `parts=FOLDER`. What a run folder says of itself counts for nothing. Imports no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from flowexp.cli.composing import config_folder

TARGETS = "FLOWEXP_TARGETS"  # variable with the further targets that a command line vouches for
PARTS = "FLOWEXP_PARTS"  # variable with the folder that `parts` names
BUILT_OF_A_RUN = (
    "data", "objective", "backbone", "interpolant", "time_sampler", "parameterization", "coupling", "terms",
    "optimizer", "lr_schedule", "ema", "sampler",
)  # fmt: skip
_ONLY_IN_TRAINING = ("logger", "saving", "callbacks", "strategy")  # groups of parts that write; no stored config's are
_TARGET = re.compile(r"_target_['\"]?\s*[=:]\s*['\"]?([\w.]+)")
_OF_TORCH = re.compile(r"(torch\.optim(?:\.lr_scheduler)?)\.(\w+)")


def vouched_for(words: Iterable[str], folders: Iterable[Path]) -> dict[str, str]:
    """The environment of a job whose command line consists of `words` and names `folders` of yamls."""
    said = {target for word in words for target in _TARGET.findall(word)}
    return {TARGETS: " ".join(sorted(said.union(*map(targets_in, folders))))}


def targets_in(folder: Path, leaving_out: Sequence[str] = ()) -> set[str]:
    """Every `_target_` in the yamls below a folder, but for those in some of its subfolders."""
    files = [file for file in folder.rglob("*.yaml") if file.relative_to(folder).parts[0] not in leaving_out]
    return {target for file in files for target in _TARGET.findall(file.read_text(encoding="utf-8"))}


def use_parts(folder: str | None) -> None:
    """Lets this process, and those that it starts, import and build the Python files in `folder`.

    Raises:
        ValueError: there is no such folder.
    """
    os.environ[PARTS] = ""
    if folder is None:
        return
    if not Path(folder).expanduser().is_dir():
        raise ValueError(f"parts={folder} is no folder: give the one in which your own Python files lie")
    os.environ[PARTS] = str(Path(folder).expanduser().absolute())
    sys.path.insert(0, os.environ[PARTS])


def check_targets(config: DictConfig) -> None:
    """Raises ValueError for a `_target_`, however deep in `config`, that nothing vouches for; nothing is imported."""
    _check(config, _parts_of_flowexp())


def check_stored(config: DictConfig) -> None:
    """`check_targets` of all that a command on a run builds from the run's own config, before anything of it is built.

    Parts that only a training builds, such as loggers, which write, are not allowed here.
    """
    stored = OmegaConf.masked_copy(config, [key for key in BUILT_OF_A_RUN if key in config])
    hint = f" (the run was made with parts={config.parts})" if config.get("parts") else ""
    _check(stored, _parts_of_flowexp(_ONLY_IN_TRAINING), hint)


def _check(config: DictConfig, parts: frozenset[str], hint: str = "") -> None:
    content = OmegaConf.to_container(config, resolve=True)
    for place, target in _targets(content, str(config._get_full_key(None))):
        if target not in parts and not _is_vouched_for(target) and not _is_optimization(target):
            raise ValueError(
                f"{place or 'the config'} would call {target}, which is no part of flowexp, and a config runs no "
                f"other code: if it is your own, name its folder by parts=FOLDER{hint}"
            )


def _targets(content: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Each `_target_` in nested containers, with the dotted key that it stands below."""
    if isinstance(content, Mapping):
        if "_target_" in content:
            yield place, content["_target_"]
        pairs: Iterable[tuple[Any, Any]] = content.items()
    elif isinstance(content, list | tuple):
        pairs = enumerate(content)
    else:
        return
    for key, value in pairs:
        yield from _targets(value, f"{place}.{key}".lstrip("."))


def vouch_for_folder(parts: str | None) -> None:
    """`use_parts` and the targets of its yamls, for a command without a job of its own."""
    use_parts(parts)
    os.environ.update(vouched_for([], [Path(os.environ[PARTS], "conf")] if parts else []))


@cache
def _parts_of_flowexp(leaving_out: Sequence[str] = ()) -> frozenset[str]:
    """The targets of `conf/`; `flowexp.cli` has those that Hydra itself calls."""
    found = targets_in(config_folder(), leaving_out)
    return frozenset(target for target in found if not target.startswith("flowexp.cli."))


def _is_vouched_for(target: Any) -> bool:
    return isinstance(target, str) and (
        target in os.environ.get(TARGETS, "").split() or _is_defined_in(os.environ.get(PARTS, ""), target)
    )


def _is_defined_in(folder: str, target: str) -> bool:
    """Whether a target is defined in a Python file of `folder`, and not only imported there, as `mine.os.system` is."""
    top = target.partition(".")[0]
    if not folder or top == "flowexp" or not _lies_in(Path(folder), top):
        return False
    try:
        module = getattr(get_object(target), "__module__", None)
    except (ImportError, AttributeError, ValueError):  # there is nothing of that name to call, which `build` tells
        return True
    return str(module).partition(".")[0] == top


def _lies_in(folder: Path, top: str) -> bool:
    """Whether `import top` imports a file or a package right in `folder`: an environment may lie deeper in it."""
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):  # a module that was made without one, such as __main__
        return False
    if spec is None:
        return False
    places = [spec.origin] if spec.origin else list(spec.submodule_search_locations or [])
    own = [folder / f"{top}.py", folder / top / "__init__.py", folder / top]
    return bool(places) and all(Path(place) in own for place in places)


def _is_optimization(target: Any) -> bool:
    """Whether it is an optimizer or a learning-rate schedule of torch, which all can be chosen without a yaml."""
    match = _OF_TORCH.fullmatch(str(target))
    if match is None:
        return False
    module: ModuleType = importlib.import_module(match[1])
    found = getattr(module, match[2], None)
    kinds = (module.Optimizer, importlib.import_module("torch.optim.lr_scheduler").LRScheduler)
    return isinstance(found, type) and issubclass(found, kinds)
