"""SSC by `Scaled` in other people's samplers, on both time axes.

SiT, REPA, flow_matching (CC BY-NC) and torchcfm are no dependencies: their loops are transcribed, from how they call a
network and which times they give it. torchdiffeq is there.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor
from torchdiffeq import odeint

from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.flow.velocity import Reversed, Scaled

Network = Callable[[Tensor, Tensor], Tensor]
S0, S1 = 1.3, 0.9


def ours(x: Tensor, t: Tensor) -> Tensor:
    """A velocity on our axis."""
    return torch.sin(3 * x) + 2 * t[:, None]


def theirs(x: Tensor, s: Tensor) -> Tensor:
    """The same on the other axis, from noise at 0 to data at 1."""
    return -ours(x, 1 - s)


def scale_at(progress: float) -> float:
    return S1 + (S0 - S1) * (1 - progress)


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, 3, dtype=torch.float64)


@pytest.fixture
def euler_by_hand(x: Tensor) -> Callable[[int], Tensor]:
    """Euler's method with the scaled velocity, written out."""

    def solve(num_steps: int) -> Tensor:
        state = x
        for step in range(num_steps):
            done = step / num_steps
            t = torch.full((len(x),), 1 - done, dtype=x.dtype)
            state = state - scale_at(done) * ours(state, t) / num_steps
        return state

    return solve


forwards = Reversed(Scaled(Reversed(theirs), S0, S1))
backwards = Scaled(ours, S0, S1)


def test_a_field_turned_around_twice_is_the_field(x: Tensor) -> None:
    t = torch.rand(5, dtype=torch.float64)
    torch.testing.assert_close(Reversed(Reversed(ours))(x, t), ours(x, t))
    torch.testing.assert_close(Reversed(ours)(x, t), -ours(x, 1 - t))
    torch.testing.assert_close(Reversed(theirs)(x, t), ours(x, t))


@pytest.mark.parametrize(
    ("field", "times"), [(backwards, (1.0, 0.0)), (forwards, (0.0, 1.0))], ids=["noise=1", "noise=0"]
)
def test_torchdiffeq_in_both_directions(
    field: Network, times: tuple[float, float], x: Tensor, euler_by_hand: Callable[[int], Tensor]
) -> None:
    grid = torch.linspace(*times, 9, dtype=torch.float64)
    solved = odeint(lambda t, x: field(x, t.expand(len(x))), x, grid, method="euler")[-1]
    torch.testing.assert_close(solved, euler_by_hand(8))


def test_the_ode_sampler_of_sit(x: Tensor, euler_by_hand: Callable[[int], Tensor]) -> None:
    """Its transport gives the model a vector of equal times, from t0 = 0 to t1 = 1, and hands odeint the rest."""

    def drift(t: Tensor, x: Tensor) -> Tensor:
        return forwards(x, torch.ones(x.size(0)) * t)

    solved = odeint(drift, x, torch.linspace(0, 1, 9, dtype=torch.float64), method="euler", atol=1e-6, rtol=1e-3)[-1]
    torch.testing.assert_close(solved, euler_by_hand(8))


def test_the_sde_sampler_of_sit_is_ours_with_the_scaled_velocity(x: Tensor) -> None:
    """Its loop: noise, drift with the score that follows from the model's velocity, then the step of last_step_size."""
    num_steps, last = 12, 0.04
    grid = torch.linspace(0, 1 - last, num_steps, dtype=torch.float64)
    generator = torch.Generator().manual_seed(1)

    def velocity_and_score(x: Tensor, s: Tensor) -> tuple[Tensor, Tensor]:
        velocity = forwards(x, torch.ones(x.size(0), dtype=x.dtype) * s)
        return velocity, (s * velocity - x) / (1 - s)  # on x = s data + (1 - s) noise

    state, dt = x, grid[1] - grid[0]
    for s in grid[:-1]:
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype)
        velocity, score = velocity_and_score(state, s)
        diffusion = 1 - s
        state = state + (velocity + diffusion * score) * dt + torch.sqrt(2 * diffusion) * noise * torch.sqrt(dt)
    velocity, score = velocity_and_score(state, grid[-1])
    expected = state + (velocity + (1 - grid[-1]) * score) * last  # its last step "Mean"

    sampler = Sampler("euler_maruyama", num_steps, s0=S0, s1=S1)
    again = torch.Generator().manual_seed(1)
    field = sampler.velocity_field(lambda x, t, label: ours(x, t))  # type: ignore[arg-type]
    draw = lambda: torch.randn(x.shape, generator=again, dtype=x.dtype)  # noqa: E731
    torch.testing.assert_close(sampler.integrator.solve(field, x, Linear(), draw).x, expected)


def test_the_euler_sampler_of_repa(x: Tensor, euler_by_hand: Callable[[int], Tensor]) -> None:
    """Its axis is ours; the model gets a vector of the current time and the step is to the next one."""
    times = torch.linspace(1, 0, 9, dtype=torch.float64)
    state = x
    for current, following in pairwise(times):
        state = state + (following - current) * backwards(state, torch.ones(x.size(0), dtype=x.dtype) * current)
    torch.testing.assert_close(state, euler_by_hand(8))


def test_the_sde_sampler_of_repa_is_ours_with_the_scaled_velocity(x: Tensor) -> None:
    """Its diffusion is 2 t, its drift v - t score, and its last step leaves the noise out."""
    num_steps = 12
    times = torch.cat([torch.linspace(1.0, 0.04, num_steps, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    generator = torch.Generator().manual_seed(1)

    def drift(x: Tensor, t: Tensor) -> Tensor:
        velocity = backwards(x, torch.ones(x.size(0), dtype=x.dtype) * t)
        score = -((1 - t) * velocity + x) / t  # on x = (1 - t) data + t noise
        return velocity - 0.5 * (2 * t) * score

    state = x
    for current, following in pairwise(times[:-1]):
        dt = following - current
        noise = torch.randn(x.shape, generator=generator, dtype=x.dtype) * torch.sqrt(torch.abs(dt))
        state = state + drift(state, current) * dt + torch.sqrt(2 * current) * noise
    expected = state + drift(state, times[-2]) * (times[-1] - times[-2])

    sampler = Sampler("euler_maruyama", num_steps, s0=S0, s1=S1)
    again = torch.Generator().manual_seed(1)
    field = sampler.velocity_field(lambda x, t, label: ours(x, t))  # type: ignore[arg-type]
    draw = lambda: torch.randn(x.shape, generator=again, dtype=x.dtype)  # noqa: E731
    torch.testing.assert_close(sampler.integrator.solve(field, x, Linear(), draw).x, expected)


def test_the_solver_of_flow_matching(x: Tensor, euler_by_hand: Callable[[int], Tensor]) -> None:
    """`ODESolver.sample` calls velocity_model(x=x, t=t) with one time for all rows, on a grid from 0 to 1."""

    def velocity_model(x: Tensor, t: Tensor, **extras: object) -> Tensor:
        return forwards(x, t.expand(len(x)))

    grid = torch.tensor([0.0, 1.0], dtype=torch.float64)
    options = {"step_size": 1 / 8}
    solved = odeint(lambda t, x: velocity_model(x=x, t=t), x, grid, method="euler", options=options)[-1]
    torch.testing.assert_close(solved, euler_by_hand(8))


def test_the_neural_ode_of_torchcfm(x: Tensor, euler_by_hand: Callable[[int], Tensor]) -> None:
    """torchdyn's NeuralODE calls the field as (t, x, args=...) with one time for all rows, along t_span from 0 to 1."""

    def vector_field(t: Tensor, x: Tensor, *args: object, **extras: object) -> Tensor:
        return forwards(x, t.expand(len(x)))

    state, t_span = x, torch.linspace(0, 1, 9, dtype=torch.float64)
    for t, following in pairwise(t_span):
        state = state + (following - t) * vector_field(t, state, args={})
    torch.testing.assert_close(state, euler_by_hand(8))
