"""The list of backbones: a name, and a function that builds the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowexp.backbones.base import Backbone
from flowexp.backbones.embedders import Conditioning
from flowexp.flow.argument_kinds import check_options
from flowexp.flow.choices import chosen

Builder = Callable[..., Backbone]
_SIZES = ("depth", "width", "heads", "patch", "mlp_ratio", "num_res", "head_width", "text_dim", "text_length")
_BUILDERS: dict[str, Builder] = {}


def register_backbone(name: str) -> Callable[[Builder], Builder]:
    """Decorator: list a builder, called with create_backbone's keywords, under a name."""

    def register(build: Builder) -> Builder:
        if name in _BUILDERS:
            raise ValueError(f"backbone {name!r} is registered already: choose another name")
        _BUILDERS[name] = build
        return build

    return register


def list_backbones() -> list[str]:
    """The registered names, sorted."""
    return sorted(_BUILDERS)


def create_backbone(
    name: str,
    *,
    resolution: int,
    channels: int,
    num_classes: int | None = None,
    label_dropout: float = 0.1,
    conditioning: Conditioning = "adaln_zero",
    **overrides: Any,
) -> Backbone:
    """Build a registered network for square images of the given resolution and number of channels.

    num_classes None is an unconditional network, or one that takes text. label_dropout is the rate at which
    `drop_labels` hides labels. conditioning is "adaln_zero", or "none": a network without t and label.
    overrides change the architecture of the name: depth=2, self_conditioning=8 (DiT), text_dim=512 (MMDiT).

    >>> create_backbone("dit_nano4", resolution=28, channels=1, num_classes=10).default_tap
    4

    Raises ValueError for a name that is not listed.
    """
    build = chosen("backbone.name", name, _BUILDERS)
    check_options("backbone", build, overrides)
    for key in (key for key in _SIZES if key in overrides):
        if overrides[key] < 1:
            raise ValueError(f"backbone.{key} must be at least 1, got {overrides[key]}")
    network = build(
        resolution=resolution,
        channels=channels,
        num_classes=num_classes,
        label_dropout=label_dropout,
        conditioning=conditioning,
        **overrides,
    )
    network.name = name
    return network
