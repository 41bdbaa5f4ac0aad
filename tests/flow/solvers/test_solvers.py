"""What holds for every solver."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from gaussian import SOLVERS, Watched, every_path, every_solver, gaussian_field, solve
from torch import Tensor

from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.solvers import Euler, EulerMaruyama, StochasticHeun, create_solver

CALLS = {
    "euler": lambda n: n,
    "heun": lambda n: 2 * n - 1,
    "midpoint": lambda n: 2 * n,
    "rk4": lambda n: 4 * n,
    "euler_maruyama": lambda n: n,
    "stochastic_heun": lambda n: 2 * n - 1,
}


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize("name", CALLS)
def test_the_number_of_network_calls_is_as_stated(name: str, num_steps: int):
    watched = Watched(gaussian_field(Linear(), 0.5))
    solution = solve(create_solver(name, num_steps), watched)
    assert solution.nfe == len(watched.times) == CALLS[name](num_steps)


def test_only_the_adaptive_solver_has_no_number_of_calls():
    assert SOLVERS.keys() - CALLS.keys() == {"dopri5"}


@every_path
@every_solver
def test_no_solver_asks_for_noise_levels_that_do_not_exist(path: Interpolant, name: str):
    watched = Watched(gaussian_field(path, 0.5))
    x = solve(create_solver(name, 20), watched, path).x
    low, high = path.ode_interval
    assert x.isfinite().all()
    assert max(watched.times) == pytest.approx(high)
    assert min(watched.times) >= low


@every_solver
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_state_keeps_its_dtype_and_shape(name: str, dtype: torch.dtype):
    noise = torch.randn(2, 3, 4, 4, dtype=dtype)
    x = create_solver(name, 3).solve(gaussian_field(Linear(), 0.5), noise, Linear(), lambda: torch.randn(2, 3, 4, 4)).x
    assert (x.dtype, x.shape) == (dtype, noise.shape)


@every_solver
def test_a_bf16_network_moves_a_float32_state(name: str):
    field = lambda x, t: gaussian_field(Linear(), 0.5)(x, t).bfloat16()  # noqa: E731
    assert solve(create_solver(name, 3), field).x.dtype == torch.float32


@every_solver
def test_the_noise_and_the_states_shown_are_left_alone(name: str):
    noise, shown, copies = torch.randn(3, 2), [], []
    before = noise.clone()

    def on_step(t: float, x: Tensor) -> None:
        shown.append(x)
        copies.append(x.clone())

    solution = create_solver(name, 5).solve(
        gaussian_field(Linear(), 0.5), noise, Linear(), lambda: torch.randn(3, 2), on_step
    )
    assert torch.equal(noise, before)
    assert len(shown) == 5
    assert all(torch.equal(x, copy) for x, copy in zip(shown, copies, strict=True))
    assert torch.equal(shown[-1], solution.x)


@every_solver
def test_a_solve_can_stop_early(name: str):
    reached, watched = [], Watched(gaussian_field(Linear(), 0.5))
    solve(create_solver(name, 8), watched, t_end=0.2, on_step=lambda t, x: reached.append(t))
    assert reached[-1] == pytest.approx(0.2)
    assert min(watched.times) >= 0.2 - 1e-6


@every_solver
def test_gradients_flow_through_a_solve(name: str):
    noise = torch.randn(2, 2, requires_grad=True)
    create_solver(name, 3).solve(
        gaussian_field(Linear(), 0.5), noise, Linear(), lambda: torch.randn(2, 2)
    ).x.sum().backward()
    assert noise.grad is not None and noise.grad.ne(0).all()


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Euler(0), "num_steps of at least 1"),
        (lambda: EulerMaruyama(5, diffusion="beta"), "diffusion must be one of constant, sbdm, sigma"),
        (lambda: EulerMaruyama(5, diffusion_norm=-1.0), "diffusion_norm must be at least 0"),
        (lambda: StochasticHeun(5, last_step=1.0), "last_step must lie in"),
        (lambda: StochasticHeun(5, last_step_kind="Mean"), "last_step_kind must be one of mean, tweedie, euler, none"),
        (lambda: EulerMaruyama(5, diffusion="sbdm", start_eps=0.0), "start_eps must lie between 0 and 1"),
        (lambda: create_solver("ddim", 5), "euler, heun, midpoint, rk4, dopri5, .*got 'ddim'"),
        (lambda: solve(Euler(5), gaussian_field(Linear(), 0.5), t_end=1.0), "t_end must lie in"),
    ],
)
def test_what_cannot_be_solved_is_refused(create: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        create()
