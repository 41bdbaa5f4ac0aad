"""Whether the values of a config are of the kind that their targets take: a number for `sampler.s0`, and not a word."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal, Union

from hydra.utils import get_object
from omegaconf import DictConfig, ListConfig

from flowexp.errors import moved, nearest

_WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    list: "a list",
    dict: "a group of keys",
    types.NoneType: "null",
}
Hints = dict[str, Any]


def check_values(config: DictConfig, target: Callable[..., Any] | None = None) -> None:
    """Compares the values of `config` with what its `_target_`, or `target`, declares for them; so do nodes inside.

    Raises ValueError for a value of another kind, for one that is not finite, and for a key that the target lacks.
    """
    target = get_object(config["_target_"]) if target is None and "_target_" in config else target
    hints, takes_any = ({}, True) if target is None else _signature(target)
    for key in (str(key) for key in config if not str(key).startswith("_")):
        if not takes_any and key not in hints:
            name = _name(config, key)
            if sentence := moved(name):
                raise ValueError(sentence)
            raise ValueError(f"there is no key {name}{nearest(key, hints) or _listed(target, hints, name)}")
        _check(_name(config, key), config[key], hints.get(key, Any))
        if isinstance(config[key], DictConfig) and "_target_" in config[key]:
            check_values(config[key])


def check_like(config: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Compares the plain values of `config` with those of `defaults`: a number stays one, true or false too.

    Raises ValueError as `check_values` does.
    """
    for key, default in defaults.items():
        if type(default) in (bool, int, float) and key in config:
            _check(key, config[key], type(default))


def _check(name: str, value: Any, hint: Any) -> None:
    kinds, kind = _kinds(hint), _kind(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if kinds and kind not in kinds and not (kind is int and float in kinds):
        raise ValueError(f"{name} must be {' or '.join(_WORDS[k] for k in _WORDS if k in kinds)}, got {value!r}")


def _kind(value: Any) -> type:
    return dict if isinstance(value, DictConfig) else list if isinstance(value, ListConfig) else type(value)


def _kinds(hint: Any) -> set[type]:
    """The kinds of values in a config that a type hint stands for; empty where it may be anything."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [_kinds(part) for part in typing.get_args(hint)]
        return set().union(*parts) if all(parts) else set()
    if origin is Literal:
        return {type(choice) for choice in typing.get_args(hint)}
    base = origin or hint
    if base in _WORDS or base in (Any, object) or not isinstance(base, type):
        return {base} if base in _WORDS else set()
    if issubclass(base, Path):
        return {str}
    return {list} if issubclass(base, typing.Sequence) else {dict}


def _signature(target: Callable[..., Any]) -> tuple[Hints, bool]:
    """The type hints of the keys that `target` takes, and whether it passes others on to who knows whom."""
    hints: Hints = {}
    for function, source in _constructors(target):
        parameters = inspect.signature(function).parameters.values()
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and p.name != "self"]
        found = _hints(source)
        hints = {**hints, **{name: found.get(name, Any) for name in named if name not in hints}}
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            return hints, False
        written_by = str(getattr(function, "__module__", ""))
        if written_by.startswith("pytorch_lightning"):  # DDPStrategy hands them to torch, not to its base
            return hints, True
    return hints, True


def _constructors(target: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], Any]]:
    """What is called, and what its hints are read from: a class's own constructor, then those that it passes on to."""
    if not isinstance(target, type):
        yield target, target
        return
    for owner in target.__mro__:
        if "__init__" in vars(owner) and owner is not object:
            yield vars(owner)["__init__"], owner if hasattr(owner, "__dataclass_fields__") else vars(owner)["__init__"]


def _hints(source: Any) -> Hints:
    try:
        return typing.get_type_hints(source)
    except NameError:  # a name that only type checkers import
        return {}


def _name(config: DictConfig, key: str) -> str:
    return str(config._get_full_key(key))


def _listed(target: Any, hints: Hints, name: str) -> str:
    names = ", ".join(name for name, hint in hints.items() if dict not in _kinds(hint))
    return f"; {target.__name__} has {names}. It may have been set for another choice: ~{name} leaves it out"
