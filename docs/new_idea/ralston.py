"""A solver in one file: Ralston's method, of second order, with the smallest bound on its error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.flow.solvers.ode import ODEStep, RungeKutta
from flowexp.flow.velocity import Field


@dataclass(frozen=True)
class Ralston(RungeKutta):
    """x + h (v(x, t) + 3 v(x + 2/3 h v, t + 2/3 h)) / 4: 2 num_steps network calls."""

    name: ClassVar[str] = "ralston"

    def advance(self, field: Field, x: Tensor, step: ODEStep) -> Tensor:
        first = field(x, step.t)
        second = field(torch.add(x, first, alpha=2 / 3 * step.size), torch.lerp(step.t, step.t_after, 2 / 3))
        return torch.add(x, first + 3 * second, alpha=step.size / 4)
