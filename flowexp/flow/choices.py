"""Choosing by name: one look-up and one sentence, with the nearest right name.

A part that has settings of its own is a yaml with a `_target_`. A word that only switches a formula is a `Literal` in
the signature of who reads it: validation knows it from there, and a test holds that the yaml's comment, which `--help`
prints, lists it. `chosen` serves the few words that stand for a part: a solver, a profile, an encoder.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, Literal, TypeVar, Union

Part = TypeVar("Part")


def nearest(name: str, choices: Iterable[str], cutoff: float = 0.5) -> str:
    """A hint such as `; did you mean T_min?`; empty where no name is alike. cutoff: 0 takes any name, 1 the same."""
    close = difflib.get_close_matches(name, list(choices), n=1, cutoff=cutoff)
    return f"; did you mean {close[0]}?" if close else ""


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Raises ValueError for a value of the setting `key` that is none of the choices."""
    names = list(choices)
    if value not in names:
        hint = nearest(value, names) if isinstance(value, str) else ""
        raise ValueError(f"{key} must be one of {', '.join(names)}, got {value!r}{hint}")


def chosen(key: str, name: str, parts: Mapping[str, Part]) -> Part:
    """The part called `name`. Raises ValueError, as `check_choice` does, where there is none."""
    check_choice(key, name, parts)
    return parts[name]


def choices_of(hint: Any) -> tuple[str, ...]:
    """The words that a type hint allows; empty where it allows any word, or none."""
    if typing.get_origin(hint) is Literal:
        return tuple(choice for choice in typing.get_args(hint) if isinstance(choice, str))
    if typing.get_origin(hint) in (Union, types.UnionType) and str not in (parts := typing.get_args(hint)):
        return tuple(choice for part in parts for choice in choices_of(part))
    return ()
