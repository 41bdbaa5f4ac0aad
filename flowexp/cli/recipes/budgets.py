"""A recipe's budgets: written out in its yaml, or another one at more steps, as `gpu: {like: cpu, times: 10}`."""

from __future__ import annotations

import re
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.flow.choices import check_choice

# What grows with the training: its length, and the steps at which it is saved and measured; and the samples drawn.
_STEPS = re.compile(r"(\+?(?:trainer\.max_steps|lr_schedule\.warmup_steps|checkpoint\.keep_every_n_steps)=)(\d+)")
_SAMPLES = re.compile(r"(callbacks\.(?:frechet|integration_lag)\.num_samples=)(\d+)")
_OF_TWO_CORES = re.compile(r"\+backbone\.\w+=.*|data\.batch_size=.*|callbacks\.frechet\.max_reference=.*")
_MOST_SAMPLES = 10_000


def read_budget(config: DictConfig, name: str) -> DictConfig:
    """The settings of one budget of a recipe's yaml.

    One that is `{like: OTHER, times: N, ...}` has the lines and measurements of OTHER with N times its steps and
    samples (at most 10,000), on a GPU, with the experiments' own networks and batches in place of those for two
    cores. Further keys replace those of OTHER.

    Raises:
        ValueError: the yaml has no budget of that name.
    """
    check_choice("budget", name, list(config.get("budgets", {})))
    settings = config.budgets[name]
    if "like" not in settings:
        return settings
    grown = OmegaConf.create(_grown(OmegaConf.to_container(config.budgets[settings.like]), settings.times))
    changed = {key: value for key, value in settings.items() if key not in ("like", "times")}
    changed["shared"] = [*grown.get("shared", []), "trainer.accelerator=gpu"]
    merged = OmegaConf.merge(grown, changed)
    assert isinstance(merged, DictConfig)
    return merged


def _grown(value: Any, times: int) -> Any:
    """`value` with every list of overrides in it, and every `step` of a grid, `times` as long."""
    if isinstance(value, dict):
        steps = {"step": [step * times for step in value["step"]]} if "step" in value else {}
        return {key: _grown(part, times) for key, part in value.items()} | steps
    if isinstance(value, list):
        return [_grown(part, times) for part in value if not _is_for_two_cores(part)]
    return _longer(value, times) if isinstance(value, str) else value


def _is_for_two_cores(word: Any) -> bool:
    return isinstance(word, str) and _OF_TWO_CORES.fullmatch(word) is not None


def _longer(override: str, times: int) -> str:
    if match := _STEPS.fullmatch(override):
        return f"{match[1]}{int(match[2]) * times}"
    if match := _SAMPLES.fullmatch(override):
        return f"{match[1]}{min(int(match[2]) * times, _MOST_SAMPLES)}"
    return override
