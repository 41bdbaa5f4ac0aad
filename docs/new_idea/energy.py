"""A loss term in one file: the energy of the velocity, which any objective can be asked to keep low."""

from __future__ import annotations

from torch import Tensor

from flowexp.objectives.terms import Step, Term


class Energy(Term):
    """The mean square of the predicted velocity over the regressed rows of all processes, times `lam`."""

    name = "energy"

    def forward(self, step: Step) -> Tensor:
        return step.share * step.velocity.square().mean()
