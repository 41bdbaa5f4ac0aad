"""The Dispersive Loss as a term: features of the images in a batch are pushed apart (LCF Fig. 7)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.flow.choices import check_choice
from flowexp.flow.losses import dispersive_error
from flowexp.flow.losses.dispersive import Form
from flowexp.training.loss_term import Step, Tapped, Term, check_tap
from flowexp.training.parallel.rows import gather_rows_with_gradient, num_processes


class Dispersive(Term):
    """`flowexp.flow.losses.dispersive_error` of the output of one block, over the rows of the batch.

    Defaults are those of the paper and its JAX code: the block at a quarter of the depth, lambda 0.5, tau 0.5. The
    PyTorch code of the same authors has the last block, 0.25 and 1. Their pairs are those of one process, of 16 rows in
    JAX and 32 in PyTorch: pairs="local" with as many processes.

    Arguments:
        lam: the term's weight.
        tau: temperature of "infonce_l2".
        tap: block that is read, from 1; None takes a quarter of the depth.
        form: "infonce_l2", "hinge" or "covariance".
        margin: of "hinge".
        pairs: "global" takes the rows of all processes, "local" those of each.
    """

    name = "dispersive"

    def __init__(
        self,
        lam: float = 0.5,
        tau: float = 0.5,
        tap: int | None = None,
        form: Form = "infonce_l2",
        margin: float = 1.0,
        pairs: Literal["global", "local"] = "global",
    ) -> None:
        super().__init__(lam)
        check_choice("terms.dispersive.pairs", pairs, ("global", "local"))
        if tau <= 0 or margin <= 0:
            raise ValueError(f"terms.dispersive.tau and margin must be positive, got {tau} and {margin}")
        self.tau = tau
        self.tap = tap
        self.form = form
        self.margin = margin
        self.pairs = pairs

    @property
    def taps(self) -> tuple[int, ...]:
        return () if self.tap is None else (self.tap,)

    def attach(self, backbone: Backbone) -> None:
        tap = max(1, round(backbone.depth / 4)) if self.tap is None else self.tap
        self.tap = check_tap(self.name, tap, backbone)

    def forward(self, step: Step) -> Tensor:
        tapped = step.features[self.taps[0]]
        tokens = self._of_everyone(tapped) if self.pairs == "global" else tapped.tokens
        return dispersive_error(tokens, self.tau, self.form, self.margin)

    def _of_everyone(self, tapped: Tapped) -> Tensor:
        if tapped.rows is not None and num_processes() > 1:
            raise ValueError(
                f"terms.dispersive.pairs=global needs all rows at its block, and only regressed ones reach block "
                f"{self.tap}: set terms.dispersive.tap to objective.tap or less, or pairs=local"
            )
        return gather_rows_with_gradient(tapped.tokens)
