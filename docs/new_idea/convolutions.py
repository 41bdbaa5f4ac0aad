"""A backbone in one file: a stack of convolutions that sees the noise level as a further channel."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, State


class Block(nn.Module):
    """Adds what a convolution finds."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(width, width, 3, padding=1)

    def forward(self, hidden: Tensor, condition: Tensor | None) -> Tensor:
        return hidden + self.conv(nn.functional.silu(hidden))


class Convolutions(Backbone):
    """Unconditional, at one resolution; resolution, channels and num_classes come from the data."""

    def __init__(
        self, *, resolution: int, channels: int, num_classes: int | None = None, width: int = 32, depth: int = 4
    ) -> None:
        if num_classes is not None:
            raise ValueError(f"this network takes no classes: class_conditional must be false, got {num_classes}")
        super().__init__(resolution=resolution, channels=channels, width=width, depth=depth)
        self.stem = nn.Conv2d(channels + 1, width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))
        self.final = nn.Conv2d(width, channels, 3, padding=1)

    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        level = t[:, None, None, None].expand_as(x[:, :1])
        return State(self.stem(torch.cat([x, level], dim=1)), condition=None, block=0)

    def head(self, state: State) -> Tensor:
        return self.final(state.hidden)
