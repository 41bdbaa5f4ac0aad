"""Frozen networks that turn pictures into feature vectors, by name."""

from __future__ import annotations

from typing import Any

from flowexp.encoders.base import FeatureNet
from flowexp.encoders.efficientnet_lite import EfficientNetLite
from flowexp.encoders.inception import Inception

ENCODERS: dict[str, type[FeatureNet]] = {net.name: net for net in (EfficientNetLite, Inception)}

__all__ = ["ENCODERS", "EfficientNetLite", "FeatureNet", "Inception", "create_encoder"]


def create_encoder(name: str, **options: Any) -> FeatureNet:
    """The feature network called `name`, loaded and frozen; `options` go to its class.

    Raises:
        ValueError: there is no such name, or its weights cannot be had.
    """
    if name not in ENCODERS:
        raise ValueError(f"encoder must be one of {', '.join(ENCODERS)}, got {name!r}")
    return ENCODERS[name](**options)
