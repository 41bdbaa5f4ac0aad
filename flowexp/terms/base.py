"""What a loss term is: a named, weighted part that any objective adds to its loss, scored on the same forward pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field

from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.draws import StepKey


@dataclass(frozen=True)
class Tapped:
    """The output of a block.

    Arguments:
        tokens: (R, N, D).
        rows: which rows of the batch these are, (R,); None is all of them, in order.
    """

    tokens: Tensor
    rows: Tensor | None = None

    def of(self, everyone: Tensor) -> Tensor:
        """The rows of `everyone` (B, ...) that belong to the tokens, (R, ...)."""
        return everyone if self.rows is None else everyone[self.rows]


@dataclass(frozen=True)
class Step:
    """What a training step has computed when terms are added to its loss.

    Arguments:
        data, noise, xt: (B, ...), in the space that the network works in.
        t: noise levels (B,), on the device.
        label: the condition as the network saw it, or None.
        key: names the batch, for further random draws.
        backbone: the network, for terms that need another pass of it.
        output: what the network returned for the regressed rows, (R, ...).
        velocity, target: the same as a velocity, and the velocity that it was compared with, (R, ...).
        rows: the regressed rows of the batch, (R,); None is all of them.
        features: outputs of the blocks that terms asked for, by tap.
        pixels: uint8 pictures (B, C, H, W) of the data where the network works on latents, else None.
    """

    data: Tensor
    noise: Tensor
    xt: Tensor
    t: Tensor
    label: Tensor | None
    key: StepKey
    backbone: Backbone
    output: Tensor
    velocity: Tensor
    target: Tensor
    rows: Tensor | None = None
    features: dict[int, Tapped] = field(default_factory=dict)
    pixels: Tensor | None = None

    def regressed(self, everyone: Tensor) -> Tensor:
        """The rows of `everyone` (B, ...) that are regressed, (R, ...)."""
        return everyone if self.rows is None else everyone[self.rows]


class Term(nn.Module, ABC):
    """A loss term: `lam` times the scalar that `forward` returns is added to the objective's loss.

    Trainable parameters are ordinary submodules: they are optimised with the backbone, saved with it, and not averaged
    by the EMA. A frozen teacher must not be a submodule, or checkpoints and DDP would carry it: keep it in a tuple.

    Arguments:
        lam: the term's weight.
    """

    name: str

    def __init__(self, lam: float) -> None:
        super().__init__()
        if lam < 0:
            raise ValueError(f"terms.{self.name}.lam must be at least 0, got {lam}")
        self.lam = lam

    @property
    def taps(self) -> tuple[int, ...]:
        """The blocks whose output the term reads, from 1."""
        return ()

    def attach(self, backbone: Backbone) -> None:
        """Called once, before training, with the network: makes what depends on its size."""

    @abstractmethod
    def forward(self, step: Step) -> Tensor:
        """The unweighted term, a scalar: the mean over this process's rows."""

    def after_step(self, backbone: Backbone) -> None:
        """Called after each optimizer step, for what follows the weights."""


def check_tap(name: str, tap: int, backbone: Backbone) -> int:
    """`tap` if the network has such a block. Raises ValueError otherwise."""
    if not 1 <= tap <= backbone.depth:
        raise ValueError(f"terms.{name}.tap must lie in 1..{backbone.depth}, got {tap}")
    return tap
