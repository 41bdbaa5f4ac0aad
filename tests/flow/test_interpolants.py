from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from flowexp.flow.interpolants import GVP, QUANTITIES, SBDMVP, Interpolant, Linear

PATHS = [Linear(), GVP(), SBDMVP(), SBDMVP(beta_min=0.5, beta_max=5.0)]
CONFIGS = sorted((Path(__file__).parents[2] / "conf/interpolant").glob("*.yaml"))
every_path = pytest.mark.parametrize("path", PATHS, ids=str)
INSIDE = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)


def draw(num: int = 25, dtype: torch.dtype = torch.float64) -> tuple[Tensor, Tensor]:
    """Data and noise, (num, 3, 2)."""
    generator = torch.Generator().manual_seed(1)
    data, noise = torch.randn(2, num, 3, 2, generator=generator, dtype=torch.float64)
    return data.to(dtype), noise.to(dtype)


def truth(path: Interpolant, t: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Every quantity of one and the same pair of data and noise, and xt."""
    data, noise = draw(len(t))
    sigma = path.sigma(t)[:, None, None]
    known = {"data": data, "noise": noise, "score": -noise / sigma, "velocity": path.velocity(data, noise, t)}
    return known, path.interpolate(data, noise, t)


@every_path
def test_velocity_is_the_time_derivative_of_the_path(path: Interpolant):
    data, noise = (value[:, 0, 0] for value in draw())
    t = INSIDE.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(path.interpolate(data, noise, t).sum(), t)
    torch.testing.assert_close(path.velocity(data, noise, INSIDE), derivative)


@every_path
@pytest.mark.parametrize("name", ["alpha", "sigma"])
def test_the_dotted_coefficients_are_derivatives(path: Interpolant, name: str):
    t = INSIDE.clone().requires_grad_()
    (derivative,) = torch.autograd.grad(getattr(path, name)(t).sum(), t)
    torch.testing.assert_close(getattr(path, f"{name}_dot")(INSIDE), derivative)


@every_path
def test_the_wronskian_is_the_determinant(path: Interpolant):
    torch.testing.assert_close(path.wronskian(INSIDE), Interpolant.wronskian(path, INSIDE))
    assert (path.wronskian(INSIDE) > 0).all()


@every_path
def test_the_path_starts_at_the_data_exactly(path: Interpolant):
    data, noise = draw(2, torch.float32)
    assert torch.equal(path.interpolate(data, noise, torch.zeros(2)), data)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=str)
def test_the_path_ends_at_the_noise_exactly(path: Interpolant):
    data, noise = draw(2, torch.float32)
    assert torch.equal(path.interpolate(data, noise, torch.ones(2)), noise)


def test_the_vp_path_ends_at_the_noise_nearly():
    assert SBDMVP().alpha(torch.ones(1)).item() == pytest.approx(math.exp(-(0.1 + 19.9 / 2) / 2))


@pytest.mark.parametrize("path", [GVP(), SBDMVP()], ids=str)
def test_a_variance_preserving_path_preserves_variance(path: Interpolant):
    torch.testing.assert_close(path.alpha(INSIDE) ** 2 + path.sigma(INSIDE) ** 2, torch.ones_like(INSIDE))


def sit_linear(t: float) -> tuple[float, float, float, float]:
    return t, 1 - t, 1.0, -1.0


def sit_gvp(t: float) -> tuple[float, float, float, float]:
    a, b = math.sin(t * math.pi / 2), math.cos(t * math.pi / 2)
    return a, b, math.pi / 2 * b, -math.pi / 2 * a


def sit_vp(t: float) -> tuple[float, float, float, float]:
    alpha = math.exp(-((1 - t) ** 2) * 19.9 / 4 - (1 - t) * 0.1 / 2)
    alpha_dot = alpha * (0.1 + (1 - t) * 19.9) / 2
    sigma = math.sqrt(1 - alpha**2)
    return alpha, sigma, alpha_dot, -alpha * alpha_dot / sigma


@pytest.mark.parametrize(
    ("path", "sit"), [(Linear(), sit_linear), (GVP(), sit_gvp), (SBDMVP(), sit_vp)], ids=["linear", "gvp", "sbdm_vp"]
)
def test_the_paths_are_sit_s_on_the_reversed_axis(path: Interpolant, sit):
    """SiT: coefficients, velocity, and score = (r v - x) / (sigma^2 - r sigma' sigma) with r = alpha / alpha'."""
    known, xt = truth(path, INSIDE)
    for row, t in enumerate(INSIDE.tolist()):
        alpha, sigma, alpha_dot, sigma_dot = sit(1 - t)
        x = alpha * known["data"][row] + sigma * known["noise"][row]
        v = alpha_dot * known["data"][row] + sigma_dot * known["noise"][row]
        r = alpha / alpha_dot
        torch.testing.assert_close(xt[row], x)
        torch.testing.assert_close(known["velocity"][row], -v)
        score = path.score_from_velocity(-v[None], x[None], torch.tensor([t], dtype=torch.float64))[0]
        torch.testing.assert_close(score, (r * v - x) / (sigma**2 - r * sigma_dot * sigma))


@pytest.mark.slow
@every_path
@pytest.mark.parametrize(("source", "target"), list(itertools.product(QUANTITIES, QUANTITIES)))
def test_every_quantity_gives_every_other(path: Interpolant, source: str, target: str):
    known, xt = truth(path, INSIDE)
    converted = path.convert(known[source], xt, INSIDE, source, target)
    torch.testing.assert_close(converted, known[target], rtol=1e-8, atol=1e-8)


@every_path
def test_a_gaussian_s_velocity_gives_its_score(path: Interpolant):
    """Data N(0, s^2): E[v | x] = (alpha alpha' s^2 + sigma sigma') / (alpha^2 s^2 + sigma^2) x, score = -x / var."""
    s, t = 0.6, INSIDE
    x = torch.randn(len(t), 1, dtype=torch.float64)
    variance = ((path.alpha(t) * s) ** 2 + path.sigma(t) ** 2)[:, None]
    slope = (path.alpha(t) * path.alpha_dot(t) * s**2 + path.sigma(t) * path.sigma_dot(t))[:, None] / variance
    torch.testing.assert_close(path.score_from_velocity(slope * x, x, t), -x / variance)
    torch.testing.assert_close(path.velocity_from_score(-x / variance, x, t), slope * x)


@pytest.mark.parametrize("path", PATHS[:3], ids=str)
@pytest.mark.parametrize("level", [0.1, 0.5, 0.9])
def test_the_loss_floor_of_gaussian_data_is_the_closed_form(path: Interpolant, level: float):
    """No field beats E[v | x]; what it leaves is s^2 wronskian^2 / (alpha^2 s^2 + sigma^2)."""
    s, t = 0.6, torch.full((400_000,), level)
    data, noise = s * torch.randn(400_000, 1), torch.randn(400_000, 1)
    xt, target = path.interpolate(data, noise, t), path.velocity(data, noise, t)
    a, b, a_dot, b_dot = (f(t[:1]).item() for f in (path.alpha, path.sigma, path.alpha_dot, path.sigma_dot))
    variance = (a * s) ** 2 + b**2
    error = (target - (a * a_dot * s**2 + b * b_dot) / variance * xt).square().mean().item()
    assert error == pytest.approx(s**2 * (a * b_dot - a_dot * b) ** 2 / variance, rel=0.02)


def at(level: float) -> tuple[Tensor, Tensor, Tensor]:
    """Arbitrary x, an arbitrary value, and t, all at one noise level."""
    x, value = draw(2, torch.float32)
    return x, value, torch.full((2,), level)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=str)
def test_at_pure_noise_the_score_is_minus_x_whatever_the_velocity(path: Interpolant):
    x, velocity, t = at(1.0)
    assert torch.equal(path.score_from_velocity(1e6 * velocity, x, t), -x)


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=str)
def test_at_pure_noise_what_has_a_limit_is_that_limit(path: Interpolant):
    x, value, t = at(1.0)
    sigma_dot, wronskian = path.sigma_dot(t)[0], path.wronskian(t)[0]
    assert torch.equal(path.noise_from_velocity(value, x, t), x)
    assert torch.equal(path.noise_from_data(value, x, t), x)
    assert torch.equal(path.score_from_data(value, x, t), -x)
    assert torch.equal(path.score_from_noise(value, x, t), -value)
    assert torch.equal(path.noise_from_score(value, x, t), -value)
    torch.testing.assert_close(path.velocity_from_data(value, x, t), sigma_dot * x - wronskian * value)
    torch.testing.assert_close(path.data_from_velocity(value, x, t), (sigma_dot * x - value) / wronskian)


@every_path
def test_at_clean_data_what_has_a_limit_is_that_limit(path: Interpolant):
    x, value, t = at(0.0)
    assert torch.equal(path.data_from_velocity(value, x, t), x)
    assert torch.equal(path.data_from_noise(value, x, t), x)
    assert torch.equal(path.data_from_score(value, x, t), x)
    assert not path.noise_from_score(value, x, t).any()
    assert path.noise_from_velocity(value, x, t).isfinite().all()
    assert path.velocity_from_score(value, x, t).isfinite().all()


@pytest.mark.parametrize("path", [Linear(), GVP()], ids=str)
def test_at_clean_data_velocity_and_noise_still_determine_each_other(path: Interpolant):
    x, noise, t = at(0.0)
    velocity = path.velocity_from_noise(noise, x, t)
    torch.testing.assert_close(path.noise_from_velocity(velocity, x, t), noise)


def test_the_vp_score_is_finite_at_clean_data():
    x, velocity, t = at(0.0)
    torch.testing.assert_close(SBDMVP().score_from_velocity(velocity, x, t), -20 * velocity - x)  # beta(0) = 0.1


def test_the_vp_sigma_is_precise_at_small_noise():
    """1 - alpha^2 in float32 would be off by 0.9 at t = 1e-6: alpha is 1 - 5e-8 there."""
    t = torch.logspace(-9, 0, 50)
    exact = SBDMVP().sigma(t.double())
    torch.testing.assert_close(SBDMVP().sigma(t).double(), exact, rtol=1e-6, atol=0)


@every_path
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_dtype_is_kept(path: Interpolant, dtype: torch.dtype):
    data, noise = draw(3, dtype)
    t = torch.tensor([0.1, 0.5, 0.9])
    xt = path.interpolate(data, noise, t)
    assert xt.dtype == path.velocity(data, noise, t).dtype == dtype
    for source, target in itertools.permutations(QUANTITIES, 2):
        assert path.convert(data, xt, t, source, target).dtype == dtype


@every_path
def test_bf16_is_rounded_once_at_the_end(path: Interpolant):
    data, noise = draw(25, torch.bfloat16)
    t = INSIDE.float()
    exact = path.interpolate(data.float(), noise.float(), t)
    assert torch.equal(path.interpolate(data, noise, t), exact.bfloat16())
    assert torch.equal(path.interpolate(data, noise, t.bfloat16()), path.interpolate(data, noise, t.bfloat16().float()))


@every_path
def test_float64_data_is_not_mixed_with_float32_coefficients(path: Interpolant):
    data, noise = draw(3)
    t = torch.tensor([0.25, 0.5, 0.75])  # exact in both
    assert torch.equal(path.interpolate(data, noise, t), path.interpolate(data, noise, t.double()))


def test_the_intervals_are_sit_s_on_our_axis():
    for path in (Linear(), GVP()):
        assert path.train_interval == path.ode_interval == (0.0, 1.0)
    assert SBDMVP().train_interval == (1e-5, 1.0)
    assert SBDMVP().ode_interval == (1e-3, 1.0)


@every_path
def test_everything_is_finite_on_the_training_interval(path: Interpolant):
    data, noise = draw(2, torch.float32)
    t = torch.tensor(path.train_interval)
    assert path.interpolate(data, noise, t).isfinite().all()
    assert path.velocity(data, noise, t).isfinite().all()


def test_an_unknown_quantity_is_answered_with_the_known_ones():
    x, value, t = at(0.5)
    with pytest.raises(ValueError, match="velocity, data, noise, score, got 'x0'"):
        Linear().convert(value, x, t, "velocity", "x0")


def test_one_time_per_row_is_asked_for():
    data, noise = draw(4)
    with pytest.raises(ValueError, match="one time per row"):
        Linear().interpolate(data, noise, torch.zeros(3))


@pytest.mark.parametrize(("low", "high"), [(0.0, 20.0), (-1.0, 20.0), (5.0, 1.0)])
def test_a_diffusion_that_runs_backwards_is_refused(low: float, high: float):
    with pytest.raises(ValueError, match="beta_min"):
        SBDMVP(low, high)


def test_every_interpolant_has_a_config_of_its_name():
    assert {path.stem for path in CONFIGS} == {path.name for path in PATHS}


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.stem)
def test_a_config_creates_the_interpolant_of_its_name(config: Path):
    options = OmegaConf.to_container(OmegaConf.load(config))
    target = options.pop("_target_")
    kind = next(type(path) for path in PATHS if path.name == config.stem)
    path = kind(**options)
    assert target == f"{type(path).__module__}.{type(path).__name__}"
    assert path == kind(), "a config's defaults are the class's"
