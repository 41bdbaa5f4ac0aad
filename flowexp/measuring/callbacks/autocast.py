"""The precision of the network in a measurement: that of the monitor, so that it is the same after training."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from flowexp.flow.choices import check_choice

Precision = Literal["32-true", "bf16-mixed"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)


def check_precision(precision: str) -> str:
    """The name itself. Raises ValueError for an unknown one."""
    check_choice("the precision of a measurement", precision, PRECISIONS)
    return precision


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which networks compute in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
