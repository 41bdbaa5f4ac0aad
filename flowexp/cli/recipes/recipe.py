"""A recipe: a yaml with budgets and a Python file with `measure` and `draw` beside it, found by its name."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.cli.composing import config_folder
from flowexp.cli.named_runs import named_run
