"""Hashes of the settings that decide what is trained and measured: which runs are the same. Imports no torch."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from fnmatch import fnmatchcase
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.records.files import fingerprint

# What decides the trained weights. All else (sampler, monitors, logger, names) can change without training again.
TRAINING_KEYS = (
    "objective",
    "data",
    "backbone",
    "class_conditional",
    "interpolant",
    "time_sampler",
    "parameterization",
    "coupling",
    "terms",
    "optimizer",
    "lr_schedule",
    "ema",
    "trainer",
    "strategy",
    "compile",
    "seed",
    "init",
)
# Keys that came later, with the value that changes nothing: with it, the hash is that of a config without the key.
_CAME_LATER: dict[str, dict[str, Any]] = {
    "time_sampler": {"shift": 1.0},
    "sampler": {"shift": 1.0},
    "terms.repa": {"weight": "constant", "tau": 0.7, "sharpness": 20.0},
}
# Keys below them that decide where something lies or how fast it is read, and not what is trained or measured.
_PLACES_NOT_CONTENT = {
    "data": (
        "root", "on_device", "num_workers", "cache", "decoder", "with_pictures", "vae.weights", "vae.batch_size",
        "pictures.root", "pictures.on_device", "pictures.num_workers", "pictures.cache", "pictures.batch_size",
        "pictures.text.weights",
    ),  # a cache of latents names the pictures, autoencoder and text encoder that made it
    "terms": ("*.cache", "*.teacher_options.weights"),
    "callbacks": ("*.cache", "*.encoder.weights"),
}  # fmt: skip
# Datasets that are whatever lies in their folder: there `root` is content.
_ARE_THEIR_FOLDER = ("flowexp.data.PictureFolder",)
# How long is trained: a run may be trained on with more, unless its learning rate depends on the total.
_LENGTH = ("max_steps", "max_epochs")
# What decides a measurement beside the weights and the settings of the monitor.
_MEASURED_WITH = ("objective", "data", "class_conditional", "interpolant", "parameterization", "sampler", "seed")


def training_key(config: DictConfig) -> str:
    """A hash of all settings that decide the trained weights: equal keys train equal weights."""
    return _key_of(config, TRAINING_KEYS, _stopping(config))


def _stopping(config: DictConfig) -> dict[str, Any]:
    """Lightning's own callbacks, of which some end a training or change its weights; checkpoints change nothing."""
    chosen = {name: node for name, node in chosen_callbacks(config).items() if _may_stop(str(node["_target_"]))}
    return {name: OmegaConf.to_container(node, resolve=True) for name, node in chosen.items()}


def _may_stop(target: str) -> bool:
    return target.startswith(("pytorch_lightning.", "lightning.")) and not target.endswith("Checkpoint")


def course_key(config: DictConfig) -> str:
    """A hash of all settings that decide the trained weights but how long is trained: one run may become the other."""
    length = () if _depends_on_length(config.lr_schedule) else _LENGTH
    return _key_of(config, TRAINING_KEYS, _stopping(config), {**_PLACES_NOT_CONTENT, "trainer": length})


def _depends_on_length(lr_schedule: DictConfig) -> bool:
    """Whether a longer training has other first steps: the cosine of the whole run, or a schedule that may know it."""
    target = str(lr_schedule.get("_target_"))
    if target.endswith(".cosine"):
        return lr_schedule.get("num_steps") is None and lr_schedule.get("num_epochs") is None
    return not target.startswith(("flowexp.", "torch."))


def measuring_key(config: DictConfig) -> str:
    """A hash of all settings that decide what is measured of given weights, and when."""
    return _key_of(config, ("sampler", "callbacks"))


def monitor_key(config: DictConfig, name: str) -> str:
    """A hash of all settings that decide what the entry `name` of `callbacks` measures of given weights."""
    monitor = {name: OmegaConf.to_container(config.callbacks[name], resolve=True)}
    settings = OmegaConf.create({**{key: config[key] for key in _MEASURED_WITH}, "callbacks": monitor})
    return _key_of(settings, (*_MEASURED_WITH, "callbacks"))


def num_steps_of(trainer: DictConfig, steps_per_epoch: int | None) -> int | None:
    """Optimizer steps that `max_steps` and `max_epochs` come to; None where that is open or takes the unknown epoch."""
    limits: list[int] = []
    if isinstance(trainer.max_steps, int) and trainer.max_steps > 0:
        limits.append(trainer.max_steps)
    if isinstance(trainer.max_epochs, int) and trainer.max_epochs > 0:
        if steps_per_epoch is None:
            return None
        limits.append(trainer.max_epochs * steps_per_epoch)
    return min(limits, default=None)


def chosen_callbacks(config: DictConfig) -> dict[str, DictConfig]:
    """The entries of `callbacks` that are built, by name and in their order.

    One set to null is left out, and so is one of which only settings are given: those that an experiment has for a
    monitor which `callbacks=` does not choose.
    """
    return {str(name): node for name, node in config.callbacks.items() if node is not None and "_target_" in node}


def measured_while_training(config: DictConfig) -> dict[str, int]:
    """The keys of measurements before the end, with their steps: a run that trains nothing makes none."""
    monitors = chosen_callbacks(config)
    asked = {f"callbacks.{name}.every_n_steps": node.get("every_n_steps") for name, node in monitors.items()}
    return {key: steps for key, steps in asked.items() if steps is not None}


def _key_of(
    config: DictConfig,
    keys: Iterable[str],
    further: Mapping[str, Any] | None = None,
    leaving_out: Mapping[str, tuple[str, ...]] = _PLACES_NOT_CONTENT,
) -> str:
    settings: dict[str, Any] = {"further": further} if further else {}
    for key in keys:
        if key == "init" and config.get(key) is None:
            continue
        value = OmegaConf.to_container(config[key], resolve=True) if OmegaConf.is_config(config[key]) else config[key]
        settings[key] = _as_before(key, _without(value, leaving_out.get(key, ())))
    return fingerprint.of_values(settings)


def _as_before(key: str, value: Any) -> Any:
    """`value` without its keys that came later and change nothing."""
    if not isinstance(value, dict):
        return value
    later = _CAME_LATER.get(key, {})
    kept = {name: each for name, each in value.items() if later.get(name, ...) != each}
    return {name: _as_before(f"{key}.{name}", each) for name, each in kept.items()}


def _without(value: Any, patterns: Iterable[str], below: str = "") -> Any:
    """`value` without the keys whose dotted path matches one of the patterns."""
    if not isinstance(value, dict):
        return value
    is_place = value.get("_target_") not in _ARE_THEIR_FOLDER
    kept = {
        key: inner
        for key, inner in value.items()
        if not any(fnmatchcase(f"{below}{key}", p) for p in patterns) or (key == "root" and not is_place)
    }
    return {key: _without(inner, patterns, f"{below}{key}.") for key, inner in kept.items()}
