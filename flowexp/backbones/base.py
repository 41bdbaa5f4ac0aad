"""What every velocity network offers: a forward pass that can be read, cut and continued between blocks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class State:
    """A forward pass paused after a block.

    hidden: what that block passes on, tokens (B, N, D) or a map (B, D, H, W). condition: what the later blocks are
    conditioned on, one row per sample, or None. block: how many blocks have run. carried: what later blocks need
    besides (a U-Net's skips, the text of an MMDiT), each (B, ...). taps: blocks whose tokens are to be read, before the
    pause and behind it; tapped: those of them that have been, by tap.
    """

    hidden: Tensor
    condition: Tensor | None
    block: int
    carried: tuple[Tensor, ...] = ()
    taps: frozenset[int] = frozenset()
    tapped: dict[int, Tensor] = field(default_factory=dict)

    @property
    def tokens(self) -> Tensor:
        """hidden as tokens (B, N, D); a map is read row by row."""
        return self.hidden if self.hidden.ndim == 3 else self.hidden.flatten(2).transpose(1, 2)

    def select(self, rows: Tensor) -> State:
        """The same pause for some samples only; rows is a boolean mask (B,) or a tensor of indices."""
        condition = None if self.condition is None else self.condition[rows]
        carried = tuple(part[rows] for part in self.carried)
        return replace(self, hidden=self.hidden[rows], condition=condition, carried=carried)


class Backbone(nn.Module, ABC):
    """A network that maps (xt, t, label) to a velocity of xt's shape.

    A family implements `embed`, `head` and fills `blocks`, a list of modules called as block(hidden, condition); one
    whose blocks take more overrides `run_block`. Blocks are counted from 1, as the papers count them: tap 8 is the
    output of the 8th block. `name` is the registry's, or the class's for a network that is not listed there.
    """

    name: str
    blocks: nn.ModuleList

    def __init__(
        self,
        *,
        resolution: int,
        channels: int,
        num_classes: int | None = None,
        label_dropout: float = 0.1,
        depth: int,
        width: int,
    ) -> None:
        super().__init__()
        if not 0.0 <= label_dropout <= 1.0:
            raise ValueError(f"label_dropout is a probability in [0, 1], got {label_dropout}")
        self.name = type(self).__name__
        self.resolution = resolution
        self.channels = channels
        self.num_classes = num_classes
        self.label_dropout = label_dropout
        self.depth = depth
        self.width = width

    @property
    def takes(self) -> Literal["nothing", "class", "text"]:
        """What a label is: (B,) integers for "class", embeddings (B, L, D) for "text"; "nothing" ignores labels."""
        return "nothing" if self.num_classes is None else "class"

    @property
    def null_label(self) -> int | None:
        """The label that stands for "no class": num_classes, or None on an unconditional network."""
        return self.num_classes

    def null_condition(self, label: Tensor | None) -> Tensor | None:
        """Labels shaped like `label` that stand for "nothing"; None where the network takes none or `label` is None."""
        if self.null_label is None or label is None:
            return None
        return torch.full_like(label, self.null_label)

    def set_null_text(self, embedding: Tensor) -> None:
        """Store the embedding (L, D) of the empty caption, on a network that takes text."""
        raise ValueError(f"{self.name} takes no text, and so no empty caption")

    def width_at(self, tap: int) -> int:
        """D of the tokens after a block: `width`, except where blocks differ in width."""
        self._check_taps([tap])
        return self.width

    @property
    def default_tap(self) -> int:
        """The block LCF reads, scaled to this depth: 8 of 12 (LCF section A.4.3)."""
        return max(1, round(2 * self.depth / 3))

    @abstractmethod
    def embed(self, x: Tensor, t: Tensor, label: Tensor | None) -> State:
        """The state before block 1. label None means unlabelled, as in probes: a class network takes null_label."""

    @abstractmethod
    def head(self, state: State) -> Tensor:
        """The velocity (B, C, H, W) read from the last block's state."""

    def run_block(self, block: nn.Module, state: State) -> State:
        """The state after one more block."""
        return replace(state, hidden=block(state.hidden, state.condition), block=state.block + 1)

    def advance(self, state: State, tap: int) -> State:
        """Run the blocks that lie between the state and tap, tap included, and read the tokens at the state's taps."""
        for block in self.blocks[state.block : tap]:
            state = self.run_block(block, state)
            if state.block in state.taps:
                state.tapped[state.block] = state.tokens
        return state

    def encode(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        tap: int | None = None,
        taps: Iterable[int] = (),
    ) -> State:
        """Run blocks 1..tap (all of them by default) and pause there; later blocks do not run.

        x: (B, C, H, W). t: noise level (B,) in [0, 1]. label: what the network takes, (B,) integers or text
        embeddings (B, L, D), None for "nothing"; an unconditional network ignores it. taps: see `State`. Raises
        ValueError for a tap outside 1..depth.
        """
        tap = self.depth if tap is None else tap
        self._check_taps([tap, *taps])
        return self.advance(replace(self.embed(x, t, label), taps=frozenset(taps)), tap)

    def decode(self, state: State) -> Tensor:
        """Run the blocks that remain and the head: the velocity (B, C, H, W) of the state's samples."""
        return self.head(self.advance(state, self.depth))

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """The velocity (B, C, H, W) at x (B, C, H, W) and noise level t (B,), under a label, or None."""
        return self.decode(self.encode(x, t, label))

    def features(
        self, x: Tensor, t: Tensor, label: Tensor | None = None, taps: Iterable[int] = (8,)
    ) -> dict[int, Tensor]:
        """The tokens (B, N, D) after each tapped block, by tap; nothing after the deepest tap runs."""
        taps = sorted(set(taps))
        self._check_taps(taps)
        return self.encode(x, t, label, tap=taps[-1], taps=taps).tapped

    def drop_labels(self, label: Tensor, generator: torch.Generator) -> Tensor:
        """Labels (B, ...), each replaced by the null condition with probability label_dropout.

        Nothing is drawn inside the network, so a training step calls this first. An unconditional network returns the
        labels as they are.
        """
        null = self.null_condition(label)
        if null is None:
            return label
        draw = torch.rand(len(label), generator=generator, device=generator.device)
        hidden = (draw < self.label_dropout).to(label.device)
        return torch.where(hidden.view(-1, *[1] * (label.ndim - 1)), null, label)

    def compile_blocks(self, **options: Any) -> None:
        """Compile every block in place; state-dict keys do not change. options go to torch.compile.

        Shapes are dynamic unless options say otherwise: with LCF the number of rows changes at every step.
        """
        for block in self.blocks:
            block.compile(**{"dynamic": True, **options})

    def _check_taps(self, taps: list[int]) -> None:
        if not taps or not all(1 <= tap <= self.depth for tap in taps):
            raise ValueError(f"taps must lie in 1..{self.depth}, got {taps}")
