"""The overrides of a command line, read once by Hydra's grammar: keys, values, plus signs and sweeps.

No other file compares the text of an argument: `++run=A`, `+run=A` and `run="A"` name one key and one value.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, Override, Quote, QuotedString
from hydra.errors import HydraException

NAMES = (
    "run_dir", "output_root", "name", "run", "checkpoint", "guide", "guide_checkpoint", "ckpt", "trained_run", "output",
    "file", "parts", "init", "to", "autoencoder", "data.name", "hydra.sweep.dir", "hydra.sweep.subdir",
)  # fmt: skip  # words, whatever they look like
_PLACES = ("root", "weights", "dir", "reference", "cache")  # last parts of keys that name a file or a folder
_PAIRS = {"[": "]", "(": ")", "{": "}"}


def is_override(argument: str) -> bool:
    """Whether it is key=value or ~key, and neither an option such as `--config-dir` nor the option's value."""
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def key_of(argument: str) -> str:
    """The key of an override, without its plus signs: `sampler.s0` of `++sampler.s0=1.5`."""
    return argument.partition("=")[0].lstrip("+~")


def read(arguments: Iterable[str]) -> list[Override]:
    """Each override as Hydra reads it. Raises ValueError that names the first which it cannot read."""
    return [_parsed(argument) for argument in arguments]


def last_of(key: str, arguments: Iterable[str]) -> Override | None:
    """The override of `key`, however it is spelt; of several the last, None without one."""
    said = [override for override in read(arguments) if override.key_or_group == key]
    return said[-1] if said else None


def readable(argument: str, sweeps: bool = False) -> str:
    """The same override with quotes where Hydra's grammar needs them and it is clear what is meant.

    A file, a folder or a name is taken as it is typed, whatever its characters; `~/` is the home folder. Any other
    value that the grammar cannot read is quoted unless it begins as a list, a group of keys or a quote.

    sweeps: whether commas separate values, as under `-m`.
    """
    key, equals, text = argument.partition("=")
    if not equals or argument.startswith("~"):
        return argument
    parts = _parts(text) if sweeps else [text]
    if is_place(key_of(argument)):
        if sweeps and _sweeps_by_function(argument):
            return argument
        is_word = not key.endswith(".cache")
        return f"{key}={','.join(_place(part, is_word) for part in parts)}"
    if (
        _can_be_read(argument)
        or ("," in text and not sweeps)
        or any(part[:1] in ("", *_PAIRS, "'", '"') for part in parts)
    ):
        return argument
    return f"{key}={','.join(part if _can_be_read(f'key={part}') else _quoted(part) for part in parts)}"


def is_place(key: str) -> bool:
    """Whether the value of a key is the name of a file, a folder or a run."""
    return key in NAMES or key.rpartition(".")[2] in _PLACES


def places(text: str) -> list[str]:
    """The folders of `a`, `a,b` or `[a,b]`, without quotes."""
    inside = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    named = (_read_value(_place(part.strip())) for part in _parts(inside) if part.strip())
    return [name.text if isinstance(name, QuotedString) else str(name) for name in named]


def listed(key: str, names: Sequence[str]) -> str:
    """The override that gives `key` a list of words."""
    return f"{key}=[{','.join(map(_quoted, names))}]"


def folder(key: str, path: Path) -> str:
    """The override that gives `key` a path."""
    return f"{key}={_quoted(str(path))}"


@cache
def _parser() -> OverridesParser:
    return OverridesParser.create()


@cache
def _parsed(argument: str) -> Override:
    try:
        override = _parser().parse_override(argument)
    except HydraException as error:
        raise ValueError(_cannot_be_read(argument)) from error
    if not _is_key(key_of(argument)):
        raise ValueError(_cannot_be_read(argument))
    return override


def _is_key(key: str) -> bool:
    return re.fullmatch(r"\w[\w./@:-]*", key, re.ASCII) is not None


def _cannot_be_read(argument: str) -> str:
    key, equals, text = argument.partition("=")
    if not equals:
        return f"{argument} is no setting: give key=value, or ~key to leave a key out"
    if not _is_key(key_of(argument)):
        return f"{key!r} in {argument!r} is no key: keys are words with dots between them, as in sampler.num_steps=25"
    right = shlex.quote(f"{key}={QuotedString(text=text, quote=Quote.double).with_quotes()}")
    return f"{key.lstrip('+~')}={text} cannot be read: quote the value where it is meant as it stands, as in {right}"


def _can_be_read(argument: str) -> bool:
    try:
        _parser().parse_override(argument)
    except HydraException:
        return False
    return True


def _sweeps_by_function(argument: str) -> bool:
    """Whether the value is `choice(a,b)`, `glob(*)`, `range(3)` and the like."""
    if not _can_be_read(argument):
        return False
    override = _parsed(argument)
    value: Any = override.value()
    return override.is_sweep_override() and not (isinstance(value, ChoiceSweep) and value.simple_form)


def _place(text: str, is_word: bool = True) -> str:
    """A name as Hydra reads it back: as it is typed where it can, else in quotes, with `~/` written out.

    is_word: whether `true` and `7` are names as well; a cache may be a folder, or true.
    """
    value = _read_value(text)
    is_quoted = isinstance(value, QuotedString)
    name = value.text if isinstance(value, QuotedString) else text
    home = os.path.expanduser(name)  # without such a user it stays as it is
    means_itself = value == text or (isinstance(value, bool) and not is_word) or (value is not None and "\\" in text)
    as_typed = is_quoted or text in ("", "null") or means_itself
    return text if as_typed and home == name else _quoted(home)


def _read_value(text: str) -> Any:
    """What Hydra reads of a single value; None where it cannot be read or is no single value."""
    try:
        override = _parser().parse_override(f"key={text}")
    except HydraException:
        return None
    return None if override.is_sweep_override() else override._value


def _quoted(text: str) -> str:
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def _parts(text: str) -> list[str]:
    """The values between commas, but for commas in quotes and in brackets that are closed."""
    parts, closing = [""], list[str]()
    for place, character in enumerate(text):
        quoted = closing[-1:] in (["'"], ['"'])
        if character == "," and not closing:
            parts.append("")
            continue
        if closing and character == closing[-1] and text[place - 1] != "\\":
            closing.pop()
        elif not quoted and (end := _end_of(character, parts[-1])) and end in text[place + 1 :]:
            closing.append(end)
        parts[-1] += character
    return parts


def _end_of(character: str, before: str) -> str | None:
    """What closes a bracket, or a quote at the beginning of a value."""
    return _PAIRS.get(character) or (character if character in "'\"" and not before.strip() else None)


def in_any_sampler(argument: str) -> str:
    """A change of the run's own sampler, which Hydra, who composes with another one, need not know the key of."""
    override = _parsed(argument)
    value: Any = override.value()
    values = value.list if isinstance(value, ChoiceSweep) else [value]
    is_inside = override.key_or_group.startswith("sampler.") or any(isinstance(each, dict) for each in values)
    if override.key_or_group.partition(".")[0] != "sampler" or not is_inside or argument[:1] in ("+", "~"):
        return argument
    return f"++{argument}"
