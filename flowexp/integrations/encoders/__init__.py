"""Frozen networks: feature vectors of pictures, by name; latents of pictures; vectors of captions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flowexp.flow.choices import chosen
from flowexp.integrations.encoders.base import FeatureNet, FeatureSet
from flowexp.integrations.encoders.dinov2 import DINOv2
from flowexp.integrations.encoders.efficientnet_lite import EfficientNetLite
from flowexp.integrations.encoders.inception import Inception
from flowexp.integrations.encoders.teachers import TEACHERS, Teacher, create_teacher
from flowexp.integrations.encoders.token_cache import TokenCache

ENCODERS: dict[str, type[FeatureNet]] = {net.name: net for net in (DINOv2, EfficientNetLite, Inception)}

__all__ = [
    "ENCODERS",
    "TEACHERS",
    "DINOv2",
    "EfficientNetLite",
    "FeatureNet",
    "FeatureSet",
    "Inception",
    "Teacher",
    "TokenCache",
    "as_encoder",
    "create_encoder",
    "create_teacher",
]


def create_encoder(name: str, **options: Any) -> FeatureNet:
    """The feature network called `name`, loaded and frozen; `options` go to its class.

    Raises:
        ValueError: there is no such name, or its weights cannot be had.
    """
    return chosen("encoder", name, ENCODERS)(**options)


def as_encoder(encoder: str | Mapping[str, Any] | FeatureNet) -> FeatureNet:
    """The feature network of that name, or of a name with options as a mapping; a network is returned as it is."""
    if isinstance(encoder, FeatureNet):
        return encoder
    return create_encoder(encoder) if isinstance(encoder, str) else create_encoder(**encoder)
