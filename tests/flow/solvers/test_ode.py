"""Solvers of the ODE, on Gaussian data and on straight lines."""

from __future__ import annotations

import math

import pytest
import torch
from gaussian import Watched, every_path, exact_std, fitted_order, gaussian_field, solve, spread

from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.solvers import RK4, Dopri5, Euler, Heun, Midpoint, Solver, create_solver


@pytest.mark.slow
@every_path
@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
@pytest.mark.parametrize(
    ("solver", "tolerance"),
    [(Euler(2000), 0.01), (Heun(200), 1e-3), (Midpoint(200), 1e-3), (RK4(50), 1e-3), (Dopri5(50, 1e-9, 1e-9), 1e-3)],
    ids=lambda value: getattr(value, "name", ""),
)
def test_an_ode_solver_ends_with_the_data_s_spread(solver: Solver, tolerance: float, path: Interpolant, s: float):
    assert exact_std(solver, gaussian_field(path, s), path) == pytest.approx(s, rel=tolerance)


ORDERS = [(Euler, 1, 50), (Heun, 2, 50), (Midpoint, 2, 50), (RK4, 4, 20)]  # Heun in spite of its last step
every_order = pytest.mark.parametrize(("solver", "order", "coarsest"), ORDERS)


@every_order
def test_the_error_falls_with_the_order_of_the_method(solver: type[Solver], order: int, coarsest: int):
    """dx/dt = x^2 cos t from 1 at t = 1: 1 / x = 1 + sin 1 - sin t."""
    steps = [coarsest * 2**k for k in range(4)]
    start, truth = torch.ones(1, 1, dtype=torch.float64), 1 / (1 + math.sin(1))
    field = lambda x, t: x**2 * torch.cos(t)[:, None]  # noqa: E731
    errors = [abs(solver(num).solve(field, start, Linear()).x.item() - truth) for num in steps]
    assert fitted_order(steps, errors) == pytest.approx(order, rel=0.1)


@pytest.mark.slow
@every_path
@every_order
def test_on_gaussian_data_it_falls_at_least_so_fast(solver: type[Solver], order: int, coarsest: int, path: Interpolant):
    """At t_end = 0.1, where the field is smooth on every path. On the linear path the leading error may cancel."""
    s, steps = 0.6, [coarsest * 2**k for k in range(4)]
    truth = spread(path, s, 0.1) / spread(path, s, 1.0)
    errors = [abs(exact_std(solver(num), gaussian_field(path, s), path, t_end=0.1) - truth) for num in steps]
    assert fitted_order(steps, errors) > order - 0.2


@pytest.mark.parametrize(("name", "stages"), [("midpoint", 2), ("rk4", 4)])
def test_a_field_of_t_alone_is_integrated_exactly_to_the_method_s_degree(name: str, stages: int):
    """The midpoint rule is exact for lines, Simpson's, which is RK4's there, for cubics."""
    powers = torch.arange(1.0, stages + 1)
    field = lambda x, t: (powers * t[:, None] ** (powers - 1)).expand_as(x)  # noqa: E731
    start = torch.zeros(2, stages)
    torch.testing.assert_close(create_solver(name, 3).solve(field, start, Linear()).x, start - 1)


def test_a_straight_path_needs_one_euler_step():
    """One data point: the velocity along every trajectory is constant."""
    data = torch.tensor([[2.0, -1.0]])
    noise = torch.randn(5, 2)
    field = lambda x, t: (x - data) / t[:, None]  # noqa: E731
    torch.testing.assert_close(Euler(1).solve(field, noise, Linear()).x, data.expand(5, 2))


def test_dopri5_keeps_to_its_tolerance():
    field = gaussian_field(Linear(), 0.4)
    errors = [abs(exact_std(Dopri5(rtol=rtol, atol=rtol), field) - 0.4) for rtol in (1e-3, 1e-5, 1e-7)]
    assert errors[0] < 0.02
    assert errors[1] < 2e-4
    assert errors[2] < 2e-6


def test_dopri5_counts_its_calls():
    watched = Watched(gaussian_field(Linear(), 0.5))
    assert solve(Dopri5(), watched).nfe == len(watched.times) > 6


@every_path
@pytest.mark.parametrize("name", ["euler", "heun", "midpoint", "rk4", "dopri5"])
def test_an_ode_is_integrated_over_the_path_s_interval(path: Interpolant, name: str):
    reached = []
    solve(create_solver(name, 4), gaussian_field(path, 0.5), path, on_step=lambda t, x: reached.append(t))
    low, high = path.ode_interval
    assert reached == pytest.approx([high - (high - low) * k / 4 for k in (1, 2, 3, 4)])


def test_watching_dopri5_changes_nothing():
    noise, field = torch.randn(3, 2), gaussian_field(Linear(), 0.5)
    alone = Dopri5().solve(field, noise, Linear())
    watched = Dopri5().solve(field, noise, Linear(), on_step=lambda t, x: None)
    assert torch.equal(alone.x, watched.x)
    assert alone.nfe == watched.nfe
