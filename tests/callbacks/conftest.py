"""A small module and its data, as every monitor meets them."""

from __future__ import annotations

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.data import Digits
from flowexp.modules import FlowMatching
from flowexp.sampling import Sampler


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


def random_module(num_classes: int | None = None) -> FlowMatching:
    torch.manual_seed(3)
    backbone = create_backbone("dit_nano4", resolution=8, channels=1, num_classes=num_classes)
    for parameter in backbone.parameters():
        torch.nn.init.normal_(parameter, std=0.05)
    return FlowMatching(backbone, sampler=Sampler("euler", num_steps=2))
