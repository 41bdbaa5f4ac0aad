"""`run=last`, `run=outputs/digits_fm`, `run=zoo:fashion_fm`: the newest run of all or of a folder, one of the zoo."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, QuotedString

from flowexp.cli.continuation import say
from flowexp.cli.overrides import folder, key_of, listed, read
from flowexp.cli.zoo import unpack
from flowexp.records import zoo
from flowexp.records.search import runs_below

LAST = "last"
KEYS = ("run", "guide", "init", "trained_run")  # that name a run's folder
_ROOT = Path("outputs")  # where `last` looks
_MARKS = ("config.yaml", "run.json", "sweep.json", "config.json", "checkpoints", "model_index.json")  # of one thing


def named_run(name: str, key: str = "run") -> Path:
    """The folder of a name: itself, the newest run below it, for `last` the newest below outputs, or one of the zoo.

    A choice is announced on stderr. Raises ValueError for `last` where there is no run, and for a name not of the zoo.
    """
    if zoo.is_named(name) and key != "init":  # which reads the weights where they are
        return unpack(name)
    path = Path(name)
    is_last = name == LAST and not path.exists()
    if not is_last and (not path.is_dir() or any((path / mark).exists() for mark in _MARKS)):
        return path
    runs = runs_below(_ROOT if is_last else path)
    if runs:
        say(f"{key}={name} is {runs[0].path}", sys.stderr)
        return runs[0].path
    if is_last:
        raise ValueError(f"{key}=last is the newest run below {_ROOT}, and there is none: give the folder of a run")
    return path


def with_runs_named(overrides: Sequence[str]) -> list[str]:
    """The overrides with the folders of their runs in place of `last`, and of a folder of several."""
    return [_named(each) if key_of(each) in KEYS else each for each in overrides]


def _named(override: str) -> str:
    """One override of a run's key; of a sweep over runs, each of its values."""
    key, _, _ = override.partition("=")
    value: Any = read([override])[0].value()
    several = isinstance(value, ChoiceSweep) and value.simple_form
    given = [_text(each) for each in (value.list if several else [value])]
    if not all(isinstance(each, str) and each.strip() for each in given):  # an empty one is refused later
        return override
    named = [str(named_run(each, key_of(override))) for each in given]
    if named == given:
        return override
    return listed(key, named).replace("=[", "=", 1)[:-1] if several else folder(key, Path(*named))


def _text(value: Any) -> Any:
    return value.text if isinstance(value, QuotedString) else value
