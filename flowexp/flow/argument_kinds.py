"""The kinds of values that functions declare for their arguments, and whether plain values are of them."""

from __future__ import annotations

import inspect
import math
import types
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Union

from flowexp.flow.choices import check_choice, choices_of

WORDS: dict[type, str] = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "a word",
    list: "a list",
    dict: "a group of keys",
    types.NoneType: "null",
}
Hints = dict[str, Any]


def check_kind(name: str, value: Any, hint: Any) -> None:
    """Raises ValueError for a value of another kind than `hint`, in a list too, or a word that it does not allow.

    So is a number that is not finite.
    """
    kinds, kind = kinds_of(hint), kind_of(value)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{name} must be finite, got {value}")
    if kinds and kind not in kinds and not (kind is int and float in kinds):
        raise ValueError(f"{name} must be {_in_words(kinds)}, got {shown(value)}")
    if kind is str and (choices := choices_of(hint)):
        check_choice(name, value, choices)
    if kind is list:
        _check_list(name, value, hint)


def check_options(where: str, target: Callable[..., Any], options: Mapping[str, Any]) -> None:
    """Raises ValueError for an option that `target` does not take, or of another kind than it declares.

    where: the key that the options stand under, such as backbone.
    """
    hints, takes_any = signature(target)
    for key, value in options.items():
        if key not in hints and not takes_any:
            raise ValueError(f"there is no key {where}.{key}: {where} takes {', '.join(hints) or 'no keys'}")
        check_kind(f"{where}.{key}", value, hints.get(key, Any))


def kind_of(value: Any) -> type:
    """What a value of a config is: a list and a group of keys whatever their classes."""
    if isinstance(value, Mapping):
        return dict
    return list if isinstance(value, Sequence) and not isinstance(value, str) else type(value)


def kinds_of(hint: Any) -> set[type]:
    """The kinds of values in a config that a type hint stands for; empty where it may be anything."""
    origin = typing.get_origin(hint)
    if origin in (Union, types.UnionType):
        parts = [kinds_of(part) for part in typing.get_args(hint)]
        return set().union(*parts) if all(parts) else set()
    if origin is Literal:
        return {type(choice) for choice in typing.get_args(hint)}
    base = origin or hint
    if base in WORDS or base in (Any, object) or not isinstance(base, type):
        return {base} if base in WORDS else set()
    if issubclass(base, Path):
        return {str}
    return {list} if issubclass(base, typing.Sequence) else {dict}


def signature(target: Callable[..., Any]) -> tuple[Hints, bool]:
    """The type hints of the keys that `target` takes, and whether it accepts further keyword arguments."""
    hints: Hints = {}
    target = target.func if isinstance(target, partial) else target
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


def _check_list(name: str, values: Sequence[Any], hint: Any) -> None:
    """Compares the entries of a list with `Sequence[float]`, or their number too with `tuple[float, float]`."""
    for part in typing.get_args(hint) if typing.get_origin(hint) in (Union, types.UnionType) else (hint,):
        entries, base = typing.get_args(part), typing.get_origin(part)
        if base is None or base is dict or not entries:
            continue
        if base is tuple and Ellipsis not in entries:
            if len(values) != len(entries):
                raise ValueError(f"{name} must have {len(entries)} values, got {shown(values)}")
        elif not issubclass(base, typing.Sequence):
            continue
        for value in values:
            check_kind(f"each of {name}", value, entries[0])


def _constructors(target: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], Any]]:
    """Each constructor and the source of its hints: that of the class, then those that receive its keywords."""
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


def _in_words(kinds: set[type]) -> str:
    return " or ".join(WORDS[kind] for kind in WORDS if kind in kinds)


def shown(value: Any) -> str:
    """As it is typed: true and null, and not True and None."""
    if value is None or isinstance(value, bool):
        return "null" if value is None else str(value).lower()
    return str(list(value)) if kind_of(value) is list else str(dict(value)) if kind_of(value) is dict else repr(value)
