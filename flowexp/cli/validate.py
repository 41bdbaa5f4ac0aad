"""Whether the values of a config are of the kind that their targets take: a number for `sampler.s0`, and not a word.

The comparison is `flowexp.flow.argument_kinds`, and not pydantic, which was tried on the same hints: its strict mode
refuses the list that a yaml has for a tuple and the word for a Path, its lax one takes "3" for a number, and its errors
of a union are one for each member under an internal name, so that our one sentence would still be made by hand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from hydra.utils import get_object
from omegaconf import DictConfig

from flowexp.cli.errors import moved
from flowexp.flow.argument_kinds import Hints, check_kind, kind_of, kinds_of, signature
from flowexp.flow.choices import nearest

_SETS = ("levels", "taps", "readings", "metrics")  # lists in which a value twice is a slip, and none at all too
_OPEN = {  # the kinds of the keys of commands that a yaml leaves null
    "label": int | None, "seed": int | None, "ckpt": str | None, "checkpoint": str | None, "guide": str | None,
    "guide_checkpoint": str | None, "trained_run": str | None, "optimized_metric": str | None, "name": str | None,
    "shard": str | None, "run": str | None, "output": str | None, "wandb": str | None, "convention": str | None,
    "ema": float | str | None, "parts": str | None, "init": str | None, "autoencoder": str | None,
    "prompts": list[str] | None,
}  # fmt: skip
_OR_AUTO = ("compile",)  # keys that may also be left to flowexp
_WIDER = {"trainer.precision": int | str | None}  # than Lightning has it: `auto` is ours, and checked by `trainer_keys`


def check_values(config: DictConfig, target: Callable[..., Any] | None = None) -> None:
    """Compares the values of `config` with what its `_target_`, or `target`, declares for them; so do nodes inside.

    Raises ValueError for a value of another kind, for one that is not finite, for one that a list has twice, and for a
    key that the target lacks.
    """
    target = get_object(config["_target_"]) if target is None and "_target_" in config else target
    hints, takes_any = ({}, True) if target is None else signature(target)
    for key in (str(key) for key in config if not str(key).startswith("_")):
        name = _name(config, key)
        if not takes_any and key not in hints:
            if sentence := moved(name):
                raise ValueError(sentence)
            raise ValueError(f"there is no key {name}{nearest(key, hints) or _listed(target, hints, name)}")
        check_kind(name, config[key], _WIDER.get(name, hints.get(key, Any)))
        if key in _SETS:
            _check_set(name, config[key])
        if isinstance(config[key], DictConfig) and "_target_" in config[key]:
            check_values(config[key])


def check_like(config: DictConfig, defaults: Mapping[str, Any]) -> None:
    """Compares the plain values of `config` with those of `defaults`: a number stays one, true or false too.

    One that is null by default is compared with the kind that its key has. Raises ValueError as `check_values` does.
    """
    for key, default in defaults.items():
        if key not in config or (key in _OR_AUTO and config[key] == "auto"):
            continue
        if type(default) in (bool, int, float):
            check_kind(key, config[key], type(default))
        elif type(default) is str and kind_of(config[key]) not in (str, int, float):
            check_kind(key, config[key], str)
        elif default is None and key in _OPEN:
            check_kind(key, config[key], _OPEN[key])


def _check_set(name: str, values: Any) -> None:
    """Raises ValueError for a list that names something twice, or nothing."""
    if kind_of(values) is not list:
        return
    if not values:
        raise ValueError(f"{name} is empty: give at least one value, or leave it out for the default")
    if twice := [value for place, value in enumerate(values) if value in values[:place]]:
        raise ValueError(f"{name} must name each value once, got {twice[0]} twice")


def _name(config: DictConfig, key: str) -> str:
    return str(config._get_full_key(key))


def _listed(target: Any, hints: Hints, name: str) -> str:
    names = ", ".join(name for name, hint in hints.items() if dict not in kinds_of(hint))
    return f"; {target.__name__} has {names}. It may have been set for another choice: ~{name} leaves it out"
