"""Whether the numbers that callbacks and schedules watch are logged or measured, looked at before training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import EarlyStopping, ModelCheckpoint

from flowexp.flow.choices import nearest
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.objectives import FlowMatching

_OF_LIGHTNING = ("epoch", "step")  # what ModelCheckpoint may watch as well


def check_watched(callbacks: Sequence[pl.Callback], module: FlowMatching, names: Mapping[int, str]) -> None:
    """Refuses a callback that watches a number which nothing gives, or nothing before the end of training.

    An EarlyStopping then waits for a number that is not measured yet, where Lightning would end the run.

    Arguments:
        callbacks: all of a run.
        module: whose losses are logged.
        names: of a callback among the keys of `callbacks`, by its `id`.

    Raises:
        ValueError: with the nearest right name.
    """
    for callback in callbacks:
        watched = getattr(callback, "monitor", None)
        if isinstance(watched, str):
            key = f"callbacks.{names.get(id(callback), type(callback).__name__)}.monitor"
            check_watchable(key, watched, callbacks, module)
        if isinstance(callback, EarlyStopping):
            callback.strict = False


def check_watchable(key: str, watched: str, callbacks: Sequence[pl.Callback], module: FlowMatching) -> None:
    """The same for one key and the number that it names."""
    monitors = [callback for callback in callbacks if isinstance(callback, Monitor)]
    on_the_way = [monitor for monitor in monitors if monitor.every_n_steps]
    logged = logged_names(module)
    if watched in _OF_LIGHTNING or _is_among(watched, logged, on_the_way):
        return
    if late := [monitor for monitor in monitors if watched in (monitor.scalar_names() or ())]:
        raise ValueError(
            f"{key}={watched} is measured at the end of training alone: set every_n_steps of "
            f"{type(late[0]).__name__}, its key in callbacks"
        )
    if _may_log_anything(callbacks) or (watched.startswith("train/") and logged is None):
        return
    known = [*(logged or ()), *(name for monitor in monitors for name in monitor.scalar_names() or ())]
    hint = nearest(watched, known, cutoff=0.4) or "."
    raise ValueError(f"{key}={watched} is nothing that this run logs or measures{hint} There are {', '.join(known)}")


def _is_among(watched: str, logged: Iterable[str] | None, monitors: Iterable[Monitor]) -> bool:
    names = [monitor.scalar_names() for monitor in monitors]
    return watched in (logged or ()) or any(
        not watched.startswith("train/") if known is None else watched in known for known in names
    )


def logged_names(module: FlowMatching) -> tuple[str, ...] | None:
    """The names logged at a training step; None for an objective whose `losses` may add parts."""
    owners = [next(owner for owner in type(module).__mro__ if name in vars(owner)) for name in ("losses", "loss_names")]
    if owners[0] is not owners[1] and issubclass(*owners):
        return None
    parts = ("loss", *module.loss_names(), "grad_norm", "lr", "steps_per_second")
    return tuple(f"train/{part}" for part in parts)


def _may_log_anything(callbacks: Iterable[pl.Callback]) -> bool:
    """Whether a callback from outside of flowexp is no monitor: it may log by `pl_module.log`."""
    return any(
        not isinstance(callback, Monitor)
        and not type(callback).__module__.startswith(("flowexp.", "pytorch_lightning.", "lightning."))
        for callback in callbacks
    )


def give_folders(callbacks: Iterable[Any], folder: str) -> None:
    """Has each ModelCheckpoint without a folder save in `folder`: Lightning's would be another after each resume."""
    for callback in callbacks:
        if isinstance(callback, ModelCheckpoint) and callback.dirpath is None:
            callback.dirpath = folder
