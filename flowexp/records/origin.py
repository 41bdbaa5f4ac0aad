"""Where a run comes from: command, versions, commit and machine. Imports no torch."""

from __future__ import annotations

import os
import platform
import shlex
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from flowexp.records.commit import git_commit
from flowexp.records.keys import course_key, training_key

SAID = "FLOWEXP_COMMAND"  # variable with the command line behind a job; that of the process names only the folder
_VERSIONS_OF = ("flowexp", "torch", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "wandb", "numpy")


def describe_origin(config: DictConfig) -> dict[str, Any]:
    """Where a run comes from: command, key, seed, versions, commit and machine."""
    return {
        "command": os.environ.get(SAID, shlex.join(sys.orig_argv)),
        "training_key": training_key(config),
        "course_key": course_key(config),
        "seed": config.seed,
        "versions": {name: version_of(name) for name in _VERSIONS_OF} | {"python": platform.python_version()},
        "commit": git_commit(),
        "machine": {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _processor() -> str:
    """The processor's name where the system has it (Linux), else its kind."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def version_of(package: str) -> str | None:
    """The version of an installed package; None of one that is not here."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
