"""A small module and its data, as every monitor meets them."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from flowexp.data import Digits
from flowexp.objectives import FlowMatching

sys.path.append(str(Path(__file__).parent))
from processes import random_module


@pytest.fixture
def datamodule() -> Digits:
    digits = Digits(batch_size=32)
    digits.setup()
    return digits


@pytest.fixture
def module() -> FlowMatching:
    """An unconditional network whose output is not the zero of its initialisation."""
    return random_module()


@pytest.fixture
def conditional_module() -> FlowMatching:
    """The same with a label for each of ten classes."""
    return random_module(num_classes=10)
