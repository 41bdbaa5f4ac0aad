"""Solvers against Gaussian data N(0, s^2), whose velocity is linear in x.

On a linear field a solver is a linear map of the noise it draws. Fed with unit vectors instead of noise, it returns its
own coefficients: the standard deviation of its samples is then exact, with no sampling error.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from flowexp.interpolants import GVP, SBDMVP, Interpolant, Linear
from flowexp.profiles import scale_schedule
from flowexp.solvers import SOLVERS, Dopri5, Euler, EulerMaruyama, Heun, Solver, create_solver
from flowexp.velocity import Field, Scaled

PATHS = [Linear(), GVP(), SBDMVP()]
every_path = pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
every_solver = pytest.mark.parametrize("name", sorted(SOLVERS))


def gaussian_field(path: Interpolant, s: float) -> Field:
    """E[v | x] = (alpha alpha' s^2 + sigma sigma') / (alpha^2 s^2 + sigma^2) x."""

    def field(x: Tensor, t: Tensor) -> Tensor:
        alpha, sigma = path.alpha(t), path.sigma(t)
        slope = (alpha * path.alpha_dot(t) * s**2 + sigma * path.sigma_dot(t)) / (alpha**2 * s**2 + sigma**2)
        return slope.view(-1, *[1] * (x.dim() - 1)) * x

    return field


def unit_draws(num: int) -> tuple[Tensor, Callable[[], Tensor]]:
    """Noise e_0 (num, 1), and draws e_1, e_2, .. after it: row k of the solution is the coefficient of the k-th."""
    vectors = iter(torch.eye(num, dtype=torch.float64))
    return next(vectors)[:, None], lambda: next(vectors)[:, None]


def exact_std(solver: Solver, field: Field, path: Interpolant = PATHS[0]) -> float:
    """The standard deviation of the solver's samples on a linear field."""
    noise, draw = unit_draws(solver.num_steps + 1) if solver.stochastic else (torch.ones(1, 1).double(), None)
    return solver.solve(field, noise, path, draw).x.square().sum().sqrt().item()


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


# Closed forms. Data's s: EM50, the same with SSC, with SSC on the drift alone, EM250; Euler ODE50, with SSC.
ORACLE = {
    0.05: (0.0145, 0.0141, 0.0143, 0.0131, 0.0422, 0.0382),
    0.1: (0.0800, 0.0791, 0.0795, 0.0774, 0.0914, 0.0834),
    0.2: (0.1888, 0.1862, 0.1872, 0.1878, 0.1901, 0.1755),
    0.4: (0.3921, 0.3861, 0.3879, 0.3934, 0.3871, 0.3642),
    0.7: (0.6906, 0.6840, 0.6849, 0.6952, 0.6815, 0.6549),
    1.0: (0.9864, 0.9859, 0.9834, 0.9952, 0.9746, 0.9524),
    1.5: (1.4756, 1.4998, 1.4874, 1.4938, 1.4600, 1.4585),
}


@pytest.mark.parametrize("s", ORACLE)
def test_the_variance_on_gaussian_data_is_the_closed_form(s: float):
    field = gaussian_field(Linear(), s)
    ssc = Scaled(field, 1.1, 1.0)
    drift_alone = EulerMaruyama(50, drift_scale=scale_schedule("linear", 1.1, 1.0))
    measured = (
        exact_std(EulerMaruyama(50), field),
        exact_std(EulerMaruyama(50), ssc),
        exact_std(drift_alone, field),
        exact_std(EulerMaruyama(250), field),
        exact_std(Euler(50), field),
        exact_std(Euler(50), ssc),
    )
    assert measured == pytest.approx(ORACLE[s], abs=5.1e-5)


@pytest.mark.parametrize("s", [0.2, 1.5])
def test_the_variance_recursion_by_hand_agrees(s: float):
    """Transcribed from the SDE: x <- x + (-v + sigma score) h + sqrt(2 sigma h) z, with v = a x, score = -x / var."""
    levels = [1 - 0.96 * k / 49 for k in range(50)]
    variance = 1.0
    for level, after in zip(levels, [*levels[1:], 0.0], strict=True):
        h, var = level - after, (1 - level) ** 2 * s**2 + level**2
        a = (level - (1 - level) * s**2) / var
        shake = 2 * level * h if after > 0 else 0.0
        variance = (1 + h * (-a - level / var)) ** 2 * variance + shake
    assert exact_std(EulerMaruyama(50), gaussian_field(Linear(), s)) == pytest.approx(math.sqrt(variance), rel=1e-9)


def test_the_samples_have_the_exact_variance_and_no_skew():
    """The same with real noise, in float32."""
    noise, field = torch.randn(200_000, 1), gaussian_field(Linear(), 0.7)
    x = EulerMaruyama(50).solve(field, noise, Linear(), lambda: torch.randn(200_000, 1)).x
    assert x.std().item() == pytest.approx(0.6906, rel=0.01)
    assert x.mean().abs() < 0.01
    assert (x / x.std()).pow(4).mean().item() == pytest.approx(3, abs=0.1)


@every_path
@pytest.mark.parametrize("s", [0.3, 1.0, 2.0])
def test_every_solver_ends_with_the_data_s_spread(path: Interpolant, s: float):
    field = gaussian_field(path, s)
    assert exact_std(Heun(200), field, path) == pytest.approx(s, rel=1e-3)
    assert exact_std(Dopri5(atol=1e-9, rtol=1e-9), field, path) == pytest.approx(s, rel=1e-3)
    assert exact_std(Euler(2000), field, path) == pytest.approx(s, rel=0.01)
    assert exact_std(EulerMaruyama(500, last_step=0.005), field, path) == pytest.approx(s, rel=0.02)


def fitted_order(solver: type[Solver], path: Interpolant, steps: list[int]) -> float:
    """Slope of log error against log(number of steps) at t_end = 0.1, where the field is smooth on every path."""
    s = 0.6
    t = torch.tensor([0.1], dtype=torch.float64)
    start = torch.ones(1, dtype=torch.float64)
    spread = [math.sqrt((path.alpha(u) * s).item() ** 2 + path.sigma(u).item() ** 2) for u in (start, t)]
    errors = []
    for num in steps:
        x = solver(num).solve(gaussian_field(path, s), torch.ones(1, 1).double(), path, t_end=0.1).x
        errors.append(abs(x.item() - spread[1] / spread[0]))
    logs = torch.tensor([[math.log(n), math.log(e)] for n, e in zip(steps, errors, strict=True)], dtype=torch.float64)
    centred = logs - logs.mean(0)
    return -((centred[:, 0] * centred[:, 1]).sum() / centred[:, 0].square().sum()).item()


@every_path
def test_euler_converges_with_order_one(path: Interpolant):
    assert fitted_order(Euler, path, [100, 200, 400, 800]) == pytest.approx(1, abs=0.1)


@every_path
def test_heun_converges_with_order_two_in_spite_of_its_last_step(path: Interpolant):
    assert fitted_order(Heun, path, [100, 200, 400, 800]) == pytest.approx(2, abs=0.15)


def test_euler_maruyama_converges_with_weak_order_one():
    """The variance, with a last step that shrinks like the others: with a fixed one a floor would remain."""
    steps, s = [50, 100, 200, 400], 0.6
    errors = [abs(exact_std(EulerMaruyama(n, last_step=0), gaussian_field(Linear(), s)) - s) for n in steps]
    slopes = [math.log2(coarse / fine) for coarse, fine in pairwise(errors)]
    assert slopes == pytest.approx([1, 1, 1], abs=0.15)


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


@pytest.mark.parametrize("num_steps", [1, 2, 10, 50])
@pytest.mark.parametrize(("name", "calls"), [("euler", "n"), ("euler_maruyama", "n"), ("heun", "2 n - 1")])
def test_the_number_of_network_calls_is_as_stated(name: str, calls: str, num_steps: int):
    watched = Watched(gaussian_field(Linear(), 0.5))
    solution = solve(create_solver(name, num_steps), watched)
    assert solution.nfe == len(watched.times) == {"n": num_steps, "2 n - 1": 2 * num_steps - 1}[calls]


def test_dopri5_counts_its_calls():
    watched = Watched(gaussian_field(Linear(), 0.5))
    assert solve(Dopri5(), watched).nfe == len(watched.times) > 6


@every_path
@every_solver
def test_no_solver_asks_for_noise_levels_that_do_not_exist(path: Interpolant, name: str):
    watched = Watched(gaussian_field(path, 0.5))
    x = solve(create_solver(name, 20), watched, path).x
    low, high = path.ode_interval
    assert x.isfinite().all()
    assert max(watched.times) == pytest.approx(high)
    assert min(watched.times) >= low


@every_path
@pytest.mark.parametrize("name", ["euler", "heun", "dopri5"])
def test_an_ode_is_integrated_over_the_path_s_interval(path: Interpolant, name: str):
    reached = []
    solve(create_solver(name, 4), gaussian_field(path, 0.5), path, on_step=lambda t, x: reached.append(t))
    low, high = path.ode_interval
    assert reached == pytest.approx([high - (high - low) * k / 4 for k in (1, 2, 3, 4)])


def test_euler_maruyama_runs_on_repa_s_grid():
    """linspace(1, 0.04, N), then 0: the size of the last step does not depend on N."""
    for num_steps in (1, 2, 50, 250):
        watched, reached = Watched(gaussian_field(Linear(), 0.5)), []
        solve(EulerMaruyama(num_steps), watched, on_step=lambda t, x, reached=reached: reached.append(t))
        grid = torch.linspace(1, 0.04, num_steps).tolist()
        assert watched.times == pytest.approx(grid)
        assert reached == pytest.approx([*grid[1:], 0.0])


@pytest.mark.parametrize(("t_end", "num_draws"), [(0.0, 9), (0.02, 9), (0.04, 10), (0.2, 10)])
def test_only_a_step_below_last_step_is_without_noise(t_end: float, num_draws: int):
    draws: list[Tensor] = []

    def draw() -> Tensor:
        draws.append(torch.randn(3, 2))
        return draws[-1]

    EulerMaruyama(10).solve(gaussian_field(Linear(), 0.5), torch.randn(3, 2), Linear(), draw, t_end=t_end)
    assert len(draws) == num_draws


def test_above_its_last_step_euler_maruyama_ends_with_noise():
    """The state at t_end = 0.2 is a sample of the path there, noise included."""
    s, field = 0.5, gaussian_field(Linear(), 0.5)
    noise, draw = unit_draws(401)
    x = EulerMaruyama(400).solve(field, noise, Linear(), draw, t_end=0.2).x
    assert x.square().sum().sqrt().item() == pytest.approx(math.sqrt((0.8 * s) ** 2 + 0.2**2), rel=2e-3)


@pytest.mark.parametrize("path", PATHS, ids=lambda path: path.name)
def test_one_call_serves_drift_and_score_as_two_calls_do(path: Interpolant):
    """SiT's loop, which calls the network for the drift and again for the score, with the same noise."""
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(6, 3, generator=generator, dtype=torch.float64) for _ in range(20)]
    field = lambda x, t: torch.sin(x) * (1 + t[:, None])  # noqa: E731

    def score(x: Tensor, t: Tensor) -> Tensor:
        return path.score_from_velocity(field(x, t), x, t)

    x, levels = draws[0], torch.linspace(1, 0.04, 20, dtype=torch.float64)
    for k, level in enumerate(levels):
        t, h = level.expand(6), level - (levels[k + 1] if k < 19 else 0.0)
        D = path.sigma(level)
        drift = -field(x, t) + D * score(x, t)
        x = x + drift * h + (torch.sqrt(2 * D * h) * draws[k + 1] if k < 19 else 0.0)

    remaining = iter(draws)
    solution = EulerMaruyama(20).solve(field, next(remaining), path, lambda: next(remaining))
    torch.testing.assert_close(solution.x, x)


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


def test_watching_dopri5_changes_nothing():
    noise, field = torch.randn(3, 2), gaussian_field(Linear(), 0.5)
    alone = Dopri5().solve(field, noise, Linear())
    watched = Dopri5().solve(field, noise, Linear(), on_step=lambda t, x: None)
    assert torch.equal(alone.x, watched.x)
    assert alone.nfe == watched.nfe


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


def test_a_stochastic_solver_asks_for_noise():
    with pytest.raises(ValueError, match="pass draw"):
        EulerMaruyama(5).solve(gaussian_field(Linear(), 0.5), torch.randn(2, 2), Linear())


@pytest.mark.parametrize(
    ("create", "message"),
    [
        (lambda: Euler(0), "num_steps of at least 1"),
        (lambda: EulerMaruyama(5, diffusion="beta"), "diffusion must be one of sigma"),
        (lambda: EulerMaruyama(5, last_step=1.0), "last_step must lie in"),
        (lambda: create_solver("rk4", 5), "euler, heun, euler_maruyama, dopri5, got 'rk4'"),
        (lambda: solve(Euler(5), gaussian_field(Linear(), 0.5), t_end=1.0), "t_end must lie in"),
    ],
)
def test_what_cannot_be_solved_is_refused(create: Callable[[], object], message: str):
    with pytest.raises(ValueError, match=message):
        create()
