"""What every velocity network offers: a forward pass that can be read, cut and continued between blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """A forward pass paused after a block.

    tokens: (B, N, D), the output of that block. condition: what the later blocks are conditioned on, one row per
    sample, or None. block: how many blocks have run.
    """

    tokens: Tensor
    condition: Tensor | None
    block: int

    def select(self, rows: Tensor) -> State:
        """The same pause for some samples only; rows is a boolean mask (B,) or a tensor of indices."""
        condition = None if self.condition is None else self.condition[rows]
        return replace(self, tokens=self.tokens[rows], condition=condition)


class Backbone(nn.Module, ABC):
    """A network that maps (xt, t, label) to a velocity of xt's shape.

    A family implements `embed`, `head` and fills `blocks`, a list of modules called as block(tokens, condition).
    Blocks are counted from 1, as the papers count them: tap 8 is the output of the 8th block.
    """

    name: str = ""
    blocks: nn.ModuleList

    def __init__(
        self,
        *,
        resolution: int,
        channels: int,
        num_classes: int | None,
        label_dropout: float,
        depth: int,
        width: int,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_dropout <= 1.0:
            raise ValueError(f"label_dropout is a probability in [0, 1], got {label_dropout}")
        self.resolution = resolution
        self.channels = channels
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.depth = depth
        self.width = width

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no class": num_classes, or None on an unconditional network."""
        return self.num_classes

    @property
    def default_tap(self) -> int:
        """The block LCF reads, scaled to this depth: 8 of 12 (LCF section A.4.3)."""
        return max(1, round(2 * self.depth / 3))

    @abstractmethod
    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        """The state before block 1."""

    @abstractmethod
    def head(self, state: State) -> Tensor:
        """The velocity (B, C, H, W) read from the last block's state."""

    def advance(self, state: State, tap: int) -> State:
        """Run the blocks that lie between the state and tap, tap included."""
        tokens = state.tokens
        for block in self.blocks[state.block : tap]:
            tokens = block(tokens, state.condition)
        return replace(state, tokens=tokens, block=max(tap, state.block))

    def encode(self, x: Tensor, t: Tensor, label: Tensor | None = None, tap: int | None = None) -> State:
        """Run blocks 1..tap (all of them by default) and pause there; later blocks do not run.

        x: (B, C, H, W). t: noise level (B,) in [0, 1]. label: (B,) integers, None for "no class"; an unconditional
        network ignores it. Raises ValueError for a tap outside 1..depth.
        """
        tap = self.depth if tap is None else tap
        self._check_taps([tap])
        return self.advance(self.embed(x, t, label), tap)

    def decode(self, state: State) -> Tensor:
        """Run the blocks that remain and the head: the velocity (B, C, H, W) of the state's samples."""
        return self.head(self.advance(state, self.depth))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The velocity (B, C, H, W) at x (B, C, H, W) and noise level t (B,), for labels (B,) or no class."""
        return self.decode(self.encode(x, t, label))

    def features(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, taps: Iterable[int] = (8,)
    ) -> dict[int, Tensor]:
        """The tokens (B, N, D) after each tapped block, by tap; nothing after the deepest tap runs."""
        taps = sorted(set(taps))
        self._check_taps(taps)
        state, found = self.embed(x, t, label), {}
        for tap in taps:
            state = self.advance(state, tap)
            found[tap] = state.tokens
        return found

    def drop_labels(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """label (B,) with each entry replaced by null_label with probability label_dropout.

        Nothing is drawn inside the network, so a training step calls this first. An unconditional network returns the
        labels as they are.
        """
        if self.null_label is None:
            return label
        draw = torch.rand(label.shape, generator=generator, device=generator.device)
        return label.masked_fill((draw < self.label_dropout).to(label.device), self.null_label)

    def compile_blocks(self, **options: Any) -> None:
        """Compile every block in place; state-dict keys do not change. options go to torch.compile.

        Shapes are dynamic unless options say otherwise: with LCF the number of rows changes at every step.
        """
        for block in self.blocks:
            block.compile(**{"dynamic": True, **options})

    def _check_taps(self, taps: list[int]) -> None:
        if not taps or not all(1 <= tap <= self.depth for tap in taps):
            raise ValueError(f"taps must lie in 1..{self.depth}, got {taps}")
