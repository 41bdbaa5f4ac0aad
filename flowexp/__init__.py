"""flowexp: flow-matching experiments (FM, LCF, MAFM, SSC). Importing it loads nothing else."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from flowexp.integrations.published import PublishedModel

__version__ = "0.1.0"

if sys.argv[:1] == ["-m"]:  # Python's name for a program while `python -m flowexp.train` looks for it
    from flowexp.training.signals import leave_quietly

    leave_quietly()


def load(source: str | Path, device: str = "cpu") -> PublishedModel:
    """A trained network to sample and to read: `flowexp.integrations.published.load`, without Hydra and Lightning.

    source: a folder that `python -m flowexp.export` wrote, `zoo:NAME`, or a name at the Hugging Face hub.
    """
    from flowexp.integrations.published import load

    return load(source, device)
