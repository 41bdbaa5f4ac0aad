"""Solvers: from noise at t = 1 to a sample at t = 0 along a velocity field; they count their network calls (NFE)."""

from __future__ import annotations

from typing import Any

from flowexp.flow.choices import chosen
from flowexp.flow.solvers.base import Draw, OnStep, Solution, Solver
from flowexp.flow.solvers.diffusions import DIFFUSIONS
from flowexp.flow.solvers.ode import RK4, Dopri5, Euler, Heun, Midpoint
from flowexp.flow.solvers.sde import LAST_STEPS, EulerMaruyama, StochasticHeun, StochasticSolver

SOLVERS: dict[str, type[Solver]] = {
    solver.name: solver for solver in (Euler, Heun, Midpoint, RK4, Dopri5, EulerMaruyama, StochasticHeun)
}


def create_solver(name: str, num_steps: int = 50, **options: Any) -> Solver:
    """The solver of that name; options are its further fields."""
    return chosen("solver", name, SOLVERS)(num_steps, **options)


__all__ = [
    "DIFFUSIONS",
    "LAST_STEPS",
    "RK4",
    "SOLVERS",
    "Dopri5",
    "Draw",
    "Euler",
    "EulerMaruyama",
    "Heun",
    "Midpoint",
    "OnStep",
    "Solution",
    "Solver",
    "StochasticHeun",
    "StochasticSolver",
    "create_solver",
]
