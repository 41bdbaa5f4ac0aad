"""Trained networks that come with flowexp: `run=zoo:fashion_fm`, `flowexp.load("zoo:fashion_fm")`.

Each folder here is an export (`python -m flowexp.export`) beside the records of its training: `run.yaml`, the resolved
config, and `run.json`, its origin. `python -m experiments.zoo` makes one from a run. Imports no torch.
"""

from __future__ import annotations

from pathlib import Path
from typing import TypeGuard

from flowexp.flow.choices import nearest

PREFIX = "zoo:"
CONFIG, ORIGIN, WEIGHTS = "run.yaml", "run.json", "model.safetensors"


def folder() -> Path:
    """Where the networks lie."""
    return Path(__file__).parent


def names() -> list[str]:
    """All networks, in the order of their names."""
    return sorted(file.parent.name for file in folder().glob(f"*/{CONFIG}"))


def is_named(text: object) -> TypeGuard[str]:
    """Whether `text` names a network of the zoo, of which there may be none."""
    return isinstance(text, str) and text.startswith(PREFIX)


def find(text: str) -> Path:
    """The folder of the network that `zoo:NAME` names.

    Raises:
        ValueError: there is none of that name.
    """
    name = text.removeprefix(PREFIX)
    if name not in (known := names()):
        raise ValueError(f"there is no {PREFIX}{name}{nearest(name, known)}. Choices: {', '.join(known)}")
    return folder() / name
