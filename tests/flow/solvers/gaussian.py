"""Gaussian data N(0, s^2), whose velocity is linear in x.

On a linear field a solver is a linear map of the noise it draws. Fed with unit vectors instead of noise, it returns its
own coefficients: the standard deviation of its samples is then exact, with no sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowexp.flow.interpolants import GVP, SBDMVP, Interpolant, Linear
from flowexp.flow.solvers import SOLVERS, Solver
from flowexp.flow.velocity import Field

PATHS = [Linear(), GVP(), SBDMVP()]
STOCHASTIC = [name for name, solver in SOLVERS.items() if solver.stochastic]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
every_solver = pytest.mark.parametrize("name", sorted(SOLVERS))
stochastic_solver = pytest.mark.parametrize("name", STOCHASTIC)


def gaussian_field(path: Interpolant, s: float) -> Field:
    """E[v | x] = (alpha alpha' s^2 + sigma sigma') / (alpha^2 s^2 + sigma^2) x."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        slope = (alpha * path.alpha_dot(t) * s**2 + sigma * path.sigma_dot(t)) / (alpha**2 * s**2 + sigma**2)
        return slope.view(-1, *[1] * (x.dim() - 1)) * x

    return field


def spread(path: Interpolant, s: float, t: float) -> float:
    """The standard deviation of the path at t."""
    level = torch.tensor([t], dtype=torch.float64)
    return math.hypot(path.alpha(level).item() * s, path.sigma(level).item())


def unit_draws(num: int) -> tuple[Tensor, Callable[[], Tensor]]:
    """Noise e_0 (num, 1), and draws e_1, e_2, .. after it: row k of the solution is the coefficient of the k-th."""
    vectors = iter(torch.eye(num, dtype=torch.float64))
    return next(vectors)[:, None], lambda: next(vectors)[:, None]


def exact_std(solver: Solver, field: Field, path: Interpolant = PATHS[0], t_end: float = 0.0) -> float:
    """The standard deviation of the solver's samples on a linear field."""
    noise, draw = unit_draws(solver.num_steps + 1) if solver.stochastic else (torch.ones(1, 1).double(), None)
    return solver.solve(field, noise, path, draw, t_end=t_end).x.square().sum().sqrt().item()


def solve(solver: Solver, field: Field, path: Interpolant = PATHS[0], rows: int = 3, **options):
    """A solve from random noise."""
    draw = (lambda: torch.randn(rows, 2)) if solver.stochastic else None
    return solver.solve(field, torch.randn(rows, 2), path, draw, **options)


class Watched:
    """A field that remembers when it was asked."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.times: list[float] = []

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        assert t.shape == x.shape[:1]
        assert t.dtype == x.dtype
        assert (t == t[0]).all()
        self.times.append(t[0].item())
        return self.field(x, t)


def fitted_order(steps: list[int], errors: list[float]) -> float:
    """Slope of log error against log(number of steps), turned positive."""
    logs = torch.tensor([[math.log(n), math.log(e)] for n, e in zip(steps, errors, strict=True)], dtype=torch.float64)
    centred = logs - logs.mean(0)
    return -((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum()).item()
