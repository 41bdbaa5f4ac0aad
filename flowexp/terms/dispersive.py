"""The Dispersive Loss as a term: features of the images in a batch are pushed apart (LCF Fig. 7)."""

from __future__ import annotations

from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.losses import dispersive_error
from flowexp.terms.base import Step, Term, check_tap


class Dispersive(Term):
    """`flowexp.losses.dispersive_error` of the output of one block, over the rows that this process holds.

    Defaults are those of the paper and its JAX code: the block at a quarter of the depth, lambda 0.5, tau 0.5. The
    PyTorch code of the same authors has the last block, 0.25 and 1. The pairs are those of one process (16 rows there,
    32 in PyTorch), so the number of processes is part of the setting.

    Arguments:
        lam: the term's weight.
        tau: temperature of "infonce_l2".
        tap: block that is read, from 1; None takes a quarter of the depth.
        form: "infonce_l2", "hinge" or "covariance".
        margin: of "hinge".
    """

    name = "dispersive"

    def __init__(
        self,
        lam: float = 0.5,
        tau: float = 0.5,
        tap: int | None = None,
        form: str = "infonce_l2",
        margin: float = 1.0,
    ) -> None:
        super().__init__(lam)
        if tau <= 0 or margin <= 0:
            raise ValueError(f"terms.dispersive.tau and margin must be positive, got {tau} and {margin}")
        self.tau = tau
        self.tap = tap
        self.form = form
        self.margin = margin

    @property
    def taps(self) -> tuple[int, ...]:
        return () if self.tap is None else (self.tap,)

    def attach(self, backbone: Backbone) -> None:
        tap = max(1, round(backbone.depth / 4)) if self.tap is None else self.tap
        self.tap = check_tap(self.name, tap, backbone)

    def forward(self, step: Step) -> Tensor:
        tokens = step.features[self.taps[0]].tokens
        return dispersive_error(tokens, self.tau, self.form, self.margin)
