"""Every argument of Lightning's Trainer: those that `trainer.KEY` gives it, and what does the work of the others."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from flowexp.flow.argument_kinds import shown

TAKEN = (
    "accelerator", "devices", "num_nodes", "precision", "max_steps", "max_epochs", "min_steps", "min_epochs",
    "max_time", "limit_train_batches", "fast_dev_run", "accumulate_grad_batches",
    "gradient_clip_val", "gradient_clip_algorithm", "deterministic", "benchmark", "profiler", "detect_anomaly",
)  # fmt: skip

_MEASURES = "nothing is validated, and what is measured has its own keys: callbacks.NAME.every_n_steps and at_end"
INSTEAD: Mapping[str, str] = {
    "strategy": "choose strategy=ddp or strategy=fsdp, a config group",
    "logger": "choose logger=csv, wandb, tensorboard or mlflow, a config group",
    "callbacks": "choose callbacks=[...], a config group",
    "default_root_dir": "give output_root=FOLDER or run_dir=FOLDER",
    "log_every_n_steps": "give log_every_n_steps=N, without trainer before it",
    "limit_val_batches": _MEASURES,
    "limit_test_batches": _MEASURES,
    "limit_predict_batches": _MEASURES,
    "val_check_interval": _MEASURES,
    "check_val_every_n_epoch": _MEASURES,
    "num_sanity_val_steps": _MEASURES,
    "inference_mode": _MEASURES,
    "overfit_batches": "debug=overfit trains on one batch, and data.train_size=N on so many images",
    "enable_checkpointing": "checkpoint.every_n_steps=N sets how often a run is saved, and its end always is",
    "enable_progress_bar": "give progress_bar=true or false",
    "enable_model_summary": "every run prints its plan with the number of parameters, and dry_run=true nothing else",
    "plugins": "the precision is trainer.precision, and checkpoints are written by flowexp's own plugin",
    "use_distributed_sampler": "the loader gives each process its share of the batch",
    "sync_batchnorm": "no network here normalises over the batch; the statistics of terms are those of all processes",
    "reload_dataloaders_every_n_epochs": "the order of every epoch is drawn from seed, and there is nothing to reload",
    "barebones": "it would save and log nothing; dry_run=true times the steps",
    "enable_autolog_hparams": "config.yaml has every setting, and logger=wandb sends it",
    "model_registry": "it would send checkpoints to a server; they lie in the run's folder",
}


def check_trainer(trainer: Mapping[str, Any]) -> None:
    """Raises ValueError for a key or a value with which training would fail, or that would be ignored."""
    for key in trainer:
        if key in INSTEAD:
            raise ValueError(f"trainer.{key} is not taken: {INSTEAD[key]}")
    _check_precision(trainer["precision"])
    _check_devices(trainer["devices"])
    _check_accelerator(trainer["accelerator"])
    for key in ("num_nodes", "accumulate_grad_batches"):
        if isinstance(value := trainer.get(key, 1), int) and value < 1:
            raise ValueError(f"trainer.{key} must be at least 1, got {value}")
    for key in ("min_steps", "min_epochs"):
        if isinstance(value := trainer.get(key), int) and value < 0:
            raise ValueError(f"trainer.{key} must be at least 0, got {value}")
    _check_time(trainer.get("max_time"))
    _check_limit(trainer.get("limit_train_batches"))
    if isinstance(value := trainer.get("gradient_clip_val"), int | float) and value < 0:
        raise ValueError(f"trainer.gradient_clip_val must be positive, or null for no limit; got {value}")
    _check_choice("gradient_clip_algorithm", trainer.get("gradient_clip_algorithm"), (None, "norm", "value"))
    _check_choice("deterministic", trainer.get("deterministic"), (None, True, False, "warn"))
    _check_choice("profiler", trainer.get("profiler"), (None, "simple", "advanced", "pytorch"))


_PRECISIONS = {"auto": "auto", "32-true": "32-true", "32": "32-true", "64-true": "64-true", "64": "64-true",
               "bf16-mixed": "bf16-mixed", "bf16": "bf16-mixed"}  # fmt: skip
_NOT_TAKEN = {
    "16-mixed": "it scales the loss until a gradient overflows, and a run ends at a gradient that is not finite",
    "16-true": "gradients below 6e-8 are zero in fp16, and so is the eps of AdamW",
    "bf16-true": "a weight in bf16 has 8 bits, and a step of 1 in 1,000 of it is lost",
}


def limited(batches: int, limit: int | float | None) -> int:
    """How many of an epoch's batches `limit_train_batches` leaves, as Lightning counts: 2 is two, 0.5 half of them."""
    if limit is None:
        return batches
    return min(batches, limit) if isinstance(limit, int) else int(batches * limit)


def precision_of(precision: str | int) -> str:
    """The long name of a precision: 64 is 64-true. Raises ValueError for one that is not taken."""
    _check_precision(precision)
    return _PRECISIONS[str(precision)]


def _check_precision(precision: Any) -> None:
    if str(precision) in _PRECISIONS and not isinstance(precision, bool):
        return
    name = {"16": "16-mixed"}.get(str(precision), str(precision))
    why = f", and {_NOT_TAKEN[name]}" if name in _NOT_TAKEN else ""
    known = ", ".join(dict.fromkeys(_PRECISIONS.values()))
    raise ValueError(f"trainer.precision must be one of {known}; got {shown(precision)}{why}")


def _check_devices(devices: Any) -> None:
    """A number, -1 or auto for all, or a list of different ones, such as [0,1] or 0,1."""
    text = isinstance(devices, str)
    listed = devices.split(",") if text and "," in devices else devices
    if isinstance(listed, str) and (listed == "auto" or listed.lstrip("-").isdigit()):
        listed = -1 if listed == "auto" else int(listed)
    if isinstance(listed, int) and not isinstance(listed, bool):
        good = listed >= 1 or listed == -1
    else:
        numbers = [str(each).strip() for each in listed] if not isinstance(listed, str | bool | float | None) else []
        good = bool(numbers) and all(each.isdigit() for each in numbers) and len({*numbers}) == len(numbers)
    if not good:
        raise ValueError(
            "trainer.devices must be a number of at least 1, auto, or the numbers of different devices, as in [0,1]; "
            f"got {shown(devices)}"
        )


def _check_accelerator(accelerator: Any) -> None:
    known = ("auto", "cpu", "gpu", "cuda")
    if accelerator not in known:
        raise ValueError(f"trainer.accelerator must be one of {', '.join(known)}; got {shown(accelerator)}")


def _check_time(limit: Any) -> None:
    """Days, hours, minutes and seconds, as Lightning takes them; or a group of such keys."""
    if isinstance(limit, str) and not re.fullmatch(r"\d+:\d+:\d+:\d+", limit):
        raise ValueError(f"trainer.max_time must be days, hours, minutes and seconds, as in 00:12:00:00; got {limit}")


def _check_limit(limit: Any) -> None:
    """A number of batches, or a share of them in (0, 1]."""
    is_number = isinstance(limit, int | float) and not isinstance(limit, bool)
    if limit is not None and not (is_number and (limit >= 1 if isinstance(limit, int) else 0 < limit <= 1)):
        raise ValueError(
            f"trainer.limit_train_batches must be a number of batches, or a share of them in (0, 1], got {shown(limit)}"
        )


def _check_choice(key: str, value: Any, choices: tuple[Any, ...]) -> None:
    if value not in choices or (isinstance(value, int) and not isinstance(value, bool)):
        known = ", ".join("null" if choice is None else str(choice).lower() for choice in choices)
        raise ValueError(f"trainer.{key} must be one of {known}; got {shown(value)}")
