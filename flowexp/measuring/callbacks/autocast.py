"""The precision of the network in a measurement: that of the monitor, so that it is the same after training."""

from __future__ import annotations

import torch

PRECISIONS = ("32-true", "bf16-mixed")


def check_precision(precision: str) -> str:
    """The name itself. Raises ValueError for an unknown one."""
    if precision not in PRECISIONS:
        raise ValueError(f"the precision of a measurement must be one of {', '.join(PRECISIONS)}, got {precision!r}")
    return precision


def autocast(precision: str, device: torch.device) -> torch.autocast:
    """A context in which networks compute in `precision`."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16-mixed")
