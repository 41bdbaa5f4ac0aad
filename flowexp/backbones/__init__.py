"""Velocity networks, listed by name: `create_backbone("dit_s2", resolution=32, channels=3)`."""

from __future__ import annotations

from flowexp.backbones import dit, mmdit, unet  # noqa: F401  (importing a family registers its names)
from flowexp.backbones.base import Backbone, State
from flowexp.backbones.registry import create_backbone, list_backbones, register_backbone

__all__ = ["Backbone", "State", "create_backbone", "list_backbones", "register_backbone"]
