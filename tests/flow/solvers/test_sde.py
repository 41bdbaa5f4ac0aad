"""Solvers of the SDE. On Gaussian data the variance of their samples is exact: no Monte Carlo."""

from __future__ import annotations

import math
from itertools import pairwise

import pytest
import torch
from gaussian import (
    PATHS,
    Watched,
    every_path,
    exact_std,
    fitted_order,
    gaussian_field,
    solve,
    stochastic_solver,
    unit_draws,
)
from torch import Tensor

from flowexp.flow.interpolants import Interpolant, Linear
from flowexp.flow.profiles import scale_schedule
from flowexp.flow.solvers import DIFFUSIONS, Euler, EulerMaruyama, Heun, Solver, StochasticHeun, create_solver
from flowexp.flow.velocity import Scaled

every_form = pytest.mark.parametrize("form", DIFFUSIONS)
every_last_step = pytest.mark.parametrize("kind", ["mean", "tweedie", "euler"])

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


@pytest.mark.slow
def test_the_samples_have_the_exact_variance_and_no_skew():
    """The same with real noise, in float32."""
    noise, field = torch.randn(200_000, 1), gaussian_field(Linear(), 0.7)
    x = EulerMaruyama(50).solve(field, noise, Linear(), lambda: torch.randn(200_000, 1)).x
    assert x.std().item() == pytest.approx(0.6906, rel=0.01)
    assert x.mean().abs() < 0.01
    assert (x / x.std()).pow(4).mean().item() == pytest.approx(3, abs=0.1)


@pytest.mark.parametrize("path", PATHS[:2], ids=lambda path: path.name)
@pytest.mark.parametrize("solver", [EulerMaruyama, StochasticHeun])
def test_the_variance_converges_with_weak_order_one(solver: type[Solver], path: Interpolant):
    """With a last step that shrinks like the others: with a fixed one a floor would remain."""
    steps, s = [50, 100, 200, 400], 0.6
    field = gaussian_field(path, s)
    errors = [abs(exact_std(solver(n, diffusion="decreasing", last_step=0), field, path) - s) for n in steps]
    assert fitted_order(steps, errors) == pytest.approx(1, abs=0.15)


def test_euler_maruyama_runs_on_repa_s_grid():
    """linspace(1, 0.04, N), then 0: the size of the last step does not depend on N."""
    for num_steps in (1, 2, 50, 250):
        watched, reached = Watched(gaussian_field(Linear(), 0.5)), []
        solve(EulerMaruyama(num_steps), watched, on_step=lambda t, x, reached=reached: reached.append(t))
        grid = torch.linspace(1, 0.04, num_steps).tolist()
        assert watched.times == pytest.approx(grid)
        assert reached == pytest.approx([*grid[1:], 0.0])


@stochastic_solver
@pytest.mark.parametrize(("t_end", "num_draws"), [(0.0, 9), (0.02, 9), (0.04, 10), (0.2, 10)])
def test_only_a_step_below_last_step_is_without_noise(name: str, t_end: float, num_draws: int):
    draws: list[Tensor] = []

    def draw() -> Tensor:
        draws.append(torch.randn(3, 2))
        return draws[-1]

    create_solver(name, 10).solve(gaussian_field(Linear(), 0.5), torch.randn(3, 2), Linear(), draw, t_end=t_end)
    assert len(draws) == num_draws


def test_above_its_last_step_euler_maruyama_ends_with_noise():
    """The state at t_end = 0.2 is a sample of the path there, noise included."""
    s, field = 0.5, gaussian_field(Linear(), 0.5)
    noise, draw = unit_draws(401)
    x = EulerMaruyama(400).solve(field, noise, Linear(), draw, t_end=0.2).x
    assert x.square().sum().sqrt().item() == pytest.approx(math.sqrt((0.8 * s) ** 2 + 0.2**2), rel=2e-3)


@every_path
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


def test_a_stochastic_solver_asks_for_noise():
    with pytest.raises(ValueError, match="pass draw"):
        EulerMaruyama(5).solve(gaussian_field(Linear(), 0.5), torch.randn(2, 2), Linear())


def falls_to_nothing(errors: list[float]) -> bool:
    """Errors of a number of steps and of four times as many: the second is small, and much the smaller one."""
    coarse, fine = map(abs, errors)
    return fine < 6e-3 and (fine < coarse / 2 or fine < 1e-3)


@pytest.mark.slow
@every_path
@every_form
@stochastic_solver
def test_every_diffusion_has_the_data_s_spread_in_the_limit(name: str, form: str, path: Interpolant):
    """Every D >= 0 has the same marginals."""
    s, field = 0.6, gaussian_field(path, 0.6)
    errors = [
        exact_std(create_solver(name, n, diffusion=form, last_step_kind="none"), field, path) - s for n in (40, 160)
    ]
    assert falls_to_nothing(errors)


@pytest.mark.parametrize("n", [0.0, 0.5, 2.0])
@stochastic_solver
def test_every_norm_of_the_diffusion_does(name: str, n: float):
    errors = [
        exact_std(create_solver(name, k, diffusion_norm=n, last_step=0), gaussian_field(Linear(), 0.6)) - 0.6
        for k in (40, 160)
    ]
    assert falls_to_nothing(errors)


@every_path
@every_last_step
def test_every_last_step_has_the_data_s_spread_in_the_limit(kind: str, path: Interpolant):
    s, field = 0.6, gaussian_field(path, 0.6)
    errors = [exact_std(EulerMaruyama(n, last_step=1 / n, last_step_kind=kind), field, path) - s for n in (40, 160)]
    assert falls_to_nothing(errors)


@every_path
@every_last_step
@stochastic_solver
def test_the_last_step_is_what_its_name_says(name: str, kind: str, path: Interpolant):
    reached = []
    field = lambda x, t: torch.sin(x) * (1 + t[:, None])  # noqa: E731
    noise, draws = torch.randn(5, 2).double(), torch.randn(3, 5, 2).double()
    solver = create_solver(name, 3, last_step=0.3, last_step_kind=kind, diffusion="linear", diffusion_norm=1.5)
    solution = solver.solve(field, noise, path, iter(draws).__next__, lambda t, x: reached.append(x))
    x, t = reached[-2], torch.full((5,), 0.3, dtype=torch.float64)
    velocity, score = field(x, t), path.score_from_velocity(field(x, t), x, t)
    expected = {
        "mean": x + 0.3 * (1.5 * 0.3 * score - velocity),
        "tweedie": (x + path.sigma(t)[:, None] ** 2 * score) / path.alpha(t)[:, None],
        "euler": x - 0.3 * velocity,
    }
    torch.testing.assert_close(solution.x, expected[kind])


def test_tweedie_that_ends_early_keeps_the_noise_of_its_end():
    """The point of the path between the expected data and noise; on the linear path, a step of the ODE."""
    ends = [
        exact_std(EulerMaruyama(20, last_step=0.3, last_step_kind=kind), gaussian_field(Linear(), 0.6), t_end=0.1)
        for kind in ("tweedie", "euler")
    ]
    assert ends[0] == pytest.approx(ends[1], rel=1e-12)


@every_path
@pytest.mark.parametrize("options", [{"last_step_kind": "none"}, {"last_step": 0}])
@stochastic_solver
def test_without_a_last_step_the_noise_goes_on_to_the_end_of_the_path_s_interval(
    name: str, options: dict, path: Interpolant
):
    """SiT's table of intervals: 0 on Linear and GVP, 1e-3 on SBDM-VP, whose sigma' is infinite at 0."""
    reached, watched = [], Watched(gaussian_field(path, 0.5))
    solve(create_solver(name, 4, **options), watched, path, on_step=lambda t, x: reached.append(t))
    low = path.ode_interval[0]
    assert reached == pytest.approx([1 - (1 - low) * k / 4 for k in (1, 2, 3, 4)])
    assert min(watched.times) == pytest.approx(reached[-2])


@every_path
@stochastic_solver
def test_with_a_last_step_it_is_sit_s_interval(name: str, path: Interpolant):
    reached, watched = [], Watched(gaussian_field(path, 0.5))
    solve(create_solver(name, 5), watched, path, on_step=lambda t, x: reached.append(t))
    assert reached == pytest.approx([0.76, 0.52, 0.28, 0.04, 0.0])
    assert (max(watched.times), min(watched.times)) == pytest.approx((1.0, 0.04))


@every_path
@pytest.mark.parametrize(("eps", "start"), [(None, 1 - 0.96 / 6), (1e-3, 0.999)])
@stochastic_solver
def test_sbdm_starts_below_a_noise_end_where_it_is_infinite(name: str, eps: float | None, start: float, path):
    watched = Watched(gaussian_field(path, 0.5))
    x = solve(create_solver(name, 6, diffusion="sbdm", start_eps=eps), watched, path).x
    start = 1.0 if path.name == "sbdm_vp" else start
    asked = sorted({round(t, 5) for t in watched.times}, reverse=True)
    assert x.isfinite().all()
    assert asked == pytest.approx(torch.linspace(start, 0.04, 6).tolist(), abs=1e-5)


@pytest.mark.parametrize("path", PATHS[:2], ids=lambda path: path.name)
@stochastic_solver
def test_sbdm_s_first_step_does_not_throw_the_state_away_from_the_path(name: str, path: Interpolant):
    """A step of h from 1 - eps multiplies x by 1 - h / eps: 20 times its size at eps = 1e-3 and 50 steps."""
    field, stds = gaussian_field(path, 0.5), []
    noise, draw = unit_draws(51)
    solver = create_solver(name, 50, diffusion="sbdm")
    solver.solve(field, noise, path, draw, on_step=lambda t, x: stds.append(x.square().sum().sqrt().item()))
    assert max(stds) < 1.5


@every_path
@pytest.mark.parametrize(("stochastic", "ode"), [(EulerMaruyama, Euler), (StochasticHeun, Heun)])
def test_with_no_diffusion_it_is_the_solver_of_the_ode(stochastic, ode, path: Interpolant):
    field = lambda x, t: torch.sin(x) * (1 + t[:, None])  # noqa: E731
    noise = torch.randn(5, 2).double()
    quiet = stochastic(7, diffusion_norm=0.0, last_step_kind="none")
    x = quiet.solve(field, noise, path, lambda: torch.randn(5, 2)).x
    torch.testing.assert_close(x, ode(7).solve(field, noise, path).x)


@every_path
@pytest.mark.parametrize("kind", ["mean", "euler"])  # tweedie's is one of the score alone
@stochastic_solver
def test_a_scale_of_the_drift_is_one_of_the_velocity_where_there_is_no_score(name: str, kind: str, path: Interpolant):
    field = lambda x, t: torch.sin(x) * (1 + t[:, None])  # noqa: E731
    noise = torch.randn(5, 2).double()
    options = {"diffusion_norm": 0.0, "last_step_kind": kind}
    drift = create_solver(name, 7, drift_scale=scale_schedule("cosine", 1.2, 0.9), **options)
    x = create_solver(name, 7, **options).solve(Scaled(field, 1.2, 0.9, "cosine"), noise, path, lambda: noise).x
    torch.testing.assert_close(drift.solve(field, noise, path, lambda: noise).x, x)


@every_path
def test_heun_s_two_calls_do_what_sit_s_four_do(path: Interpolant):
    """SiT's loop: noise, then Heun's method along the drift, whose score costs a call of its own there."""
    draws = [torch.randn(6, 3, dtype=torch.float64) for _ in range(10)]
    field = lambda x, t: torch.sin(x) * (1 + t[:, None])  # noqa: E731

    def drift(x: Tensor, level: Tensor) -> Tensor:
        t = level.expand(6)
        return path.sigma(level) * path.score_from_velocity(field(x, t), x, t) - field(x, t)

    x, levels = draws[0], torch.linspace(1, 0.04, 10, dtype=torch.float64)
    for k, (level, after) in enumerate(pairwise(levels)):
        h = level - after
        x = x + torch.sqrt(2 * path.sigma(level) * h) * draws[k + 1]
        first = drift(x, level)
        x = x + h / 2 * (first + drift(x + h * first, after))
    x = x + 0.04 * drift(x, levels[-1])

    remaining = iter(draws)
    solution = StochasticHeun(10).solve(field, next(remaining), path, lambda: next(remaining))
    torch.testing.assert_close(solution.x, x)
    assert solution.nfe == 19
