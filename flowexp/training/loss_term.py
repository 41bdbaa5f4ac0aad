"""A training step's forward pass, and the loss terms that any objective adds to its loss on that pass."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from functools import cached_property

from torch import Tensor, nn

from flowexp.backbones import Backbone
from flowexp.flow.parameterization import VelocityNetwork
from flowexp.training.step_draws import TrainingBatch


@dataclass(frozen=True)
class Tapped:
    """The output of a block.

    Arguments:
        tokens: (R, N, D), R >= 1: a process without such a row sends another, with share 0.
        rows: which rows of the batch these are, (R,); None is all of them, in order.
        share: what a mean over these rows is multiplied by, so that its mean over processes is that over the rows of
            the global batch; 1 where every process has as many.
    """

    tokens: Tensor
    rows: Tensor | None = None
    share: float = 1.0

    def of(self, everyone: Tensor) -> Tensor:
        """The rows of `everyone` (B, ...) that belong to the tokens, (R, ...)."""
        return everyone if self.rows is None else everyone[self.rows]


@dataclass(frozen=True)
class Step:
    """A pass of the network in training, as the terms of the loss see it.

    Arguments:
        batch: the data (B, ...), in the space that the network works in, and what was drawn for them.
        xt, t: what the network saw: (B, ...), and noise levels (B,) on the device.
        network: the network as one of velocities, for terms that need another pass of it.
        output: what the network returned for the regressed rows, (R, ...).
        target: the velocity that is regressed, (R, ...).
        features: outputs of the blocks that terms read, by tap.
        rows: the regressed rows of the batch, (R,); None is all of them.
        share: of the regressed rows, see `Tapped`: what a mean over them is multiplied by.
    """

    batch: TrainingBatch
    xt: Tensor
    t: Tensor
    network: VelocityNetwork
    output: Tensor
    target: Tensor
    features: dict[int, Tapped] = field(default_factory=dict)
    rows: Tensor | None = None
    share: float = 1.0

    @property
    def backbone(self) -> Backbone:
        assert isinstance(self.network.backbone, Backbone)
        return self.network.backbone

    @cached_property
    def velocity(self) -> Tensor:
        """The output as a velocity, (R, ...)."""
        return self.network.velocity(self.output, self.regressed(self.xt), self.regressed(self.t))

    @cached_property
    def attainable(self) -> Tensor:
        """The target, (R, ...), as far as an output can stand for it."""
        return self.network.attainable(self.target, self.regressed(self.xt), self.regressed(self.t))

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
        """The unweighted term, a scalar: the mean over this process's rows, times their `share`."""

    def after_step(self, backbone: Backbone) -> None:
        """Called after each optimizer step, for what follows the weights; the host waits for the device then."""


def check_tap(name: str, tap: int, backbone: Backbone) -> int:
    """`tap` if the network has such a block. Raises ValueError otherwise."""
    if not 1 <= tap <= backbone.depth:
        raise ValueError(f"terms.{name}.tap must lie in 1..{backbone.depth}, got {tap}")
    return tap
