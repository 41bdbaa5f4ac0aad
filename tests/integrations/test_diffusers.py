"""SSC in pipelines of diffusers: the parent at scale 1, the formula elsewhere, on the grid that the parent made."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("diffusers", reason="diffusers is not installed: pip install 'flowexp[diffusers]'")
pytest.importorskip("transformers", reason="transformers is not installed: pip install 'flowexp[diffusers]'")

import tiny_pipelines
from diffusers import (
    DiffusionPipeline,
    DPMSolverMultistepScheduler,
    FlowMatchEulerDiscreteScheduler,
    FlowMatchHeunDiscreteScheduler,
)

from flowexp.integrations.diffusers import (
    SSCDPMSolverMultistepScheduler,
    SSCFlowMatchEulerDiscreteScheduler,
    SSCFlowMatchHeunDiscreteScheduler,
)

OF_FLOW = {"prediction_type": "flow_prediction", "use_flow_sigmas": True}
SCHEDULERS: dict[str, tuple[Any, Any, dict[str, Any]]] = {
    "euler": (FlowMatchEulerDiscreteScheduler, SSCFlowMatchEulerDiscreteScheduler, {"shift": 3.0}),
    "heun": (FlowMatchHeunDiscreteScheduler, SSCFlowMatchHeunDiscreteScheduler, {"shift": 3.0}),
    "dpm": (DPMSolverMultistepScheduler, SSCDPMSolverMultistepScheduler, {**OF_FLOW, "flow_shift": 3.0}),
}
OF_PIPELINE = {"sana": "dpm", "sd3": "euler", "flux": "euler"}
pipelines = pytest.mark.parametrize("name", tiny_pipelines.PIPELINES)
schedulers = pytest.mark.parametrize("kind", SCHEDULERS)


@cache
def pipeline(name: str) -> Any:
    """A pipeline whose network gives velocities that are not 0: what diffusers makes starts with some zero layers."""
    pipe = tiny_pipelines.PIPELINES[name]()
    pipe.set_progress_bar_config(disable=True)
    for parameter in pipe.transformer.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.1)
    return pipe


def draw(pipe: Any, name: str, **options: Any) -> Tensor:
    """Latents of one prompt, always of the same noise."""
    settings = {"num_inference_steps": 3, "height": 32, "width": 32, "output_type": "latent", **options}
    generator = torch.Generator().manual_seed(0)
    return pipe("a red cat on grass", generator=generator, **settings, **tiny_pipelines.CALLS[name]).images


@pytest.fixture
def with_scheduler() -> Any:
    """Gives a cached pipeline another scheduler for one test."""
    before: list[tuple[Any, Any]] = []

    def put(name: str, scheduler: Any) -> Any:
        pipe = pipeline(name)
        before.append((pipe, pipe.scheduler))
        pipe.scheduler = scheduler
        return pipe

    yield put
    for pipe, scheduler in reversed(before):
        pipe.scheduler = scheduler


def walk(scheduler: Any, field: Callable[[Tensor, float], Tensor], levels: list[float], x: Tensor) -> Tensor:
    """Runs a scheduler's grid from x, the velocity being field(x, level) at each call's level."""
    for t, level in zip(scheduler.timesteps, levels, strict=True):
        x = scheduler.step(field(x, level), t, x, return_dict=False)[0]
    return x


def levels_of(scheduler: Any) -> list[float]:
    """The noise level of every network call, read off the grid: Heun's calls come in pairs behind the first."""
    return scheduler.sigmas[:-1].tolist()


def field(x: Tensor, level: float) -> Tensor:
    return x.cos() + level


# --- one step after another -------------------------------------------------------------------------------------------


@schedulers
@pytest.mark.parametrize("profile", ["linear", "cosine"])
def test_each_call_is_scaled_at_its_own_level_and_the_step_is_the_parents(kind: str, profile: str) -> None:
    parent, ssc, config = SCHEDULERS[kind]
    plain, scaled = parent(**config), ssc(**config, s0=1.3, s1=0.9, profile=profile)
    for scheduler in (plain, scaled):
        scheduler.set_timesteps(5)
    shape = {"linear": lambda p: 1 - p, "cosine": lambda p: (1 + torch.cos(torch.pi * p)) / 2}[profile]
    x, levels = torch.randn(2, 3, 4, 4), levels_of(plain)

    def by_hand(x: Tensor, level: float) -> Tensor:
        done = torch.tensor(1 - level)
        return (0.9 + 0.4 * shape(done)) * field(x, level)

    torch.testing.assert_close(walk(scaled, field, levels, x), walk(plain, by_hand, levels, x))


def test_eulers_step_is_the_formula_of_the_paper() -> None:
    scheduler = SSCFlowMatchEulerDiscreteScheduler(shift=2.0, s0=1.1)
    scheduler.set_timesteps(4)
    x = expected = torch.randn(2, 3)
    levels = scheduler.sigmas.tolist()
    for level, after in pairwise(levels):
        expected = expected + (after - level) * (1 + 0.1 * level) * field(expected, level)
    torch.testing.assert_close(walk(scheduler, field, levels[:-1], x), expected)


def test_dpm_reads_the_level_and_not_its_whole_number() -> None:
    """Its time steps are cut to whole numbers: 0.5996 becomes 599, and a scale read there would be another."""
    scheduler = SSCDPMSolverMultistepScheduler(**OF_FLOW, flow_shift=3.0, s0=2.0, solver_order=1)
    scheduler.set_timesteps(3)
    level, after = scheduler.sigmas[:2].double().tolist()
    assert level != scheduler.timesteps[0].item() / 1000
    x, velocity = torch.zeros(1, 2), torch.ones(1, 2)
    moved = scheduler.step(velocity, scheduler.timesteps[0], x).prev_sample
    torch.testing.assert_close(moved, (after - level) * (1 + level) * velocity, rtol=1e-6, atol=0)


@schedulers
def test_at_scale_one_every_step_is_the_parents_bit_for_bit(kind: str) -> None:
    parent, ssc, config = SCHEDULERS[kind]
    plain, scaled = parent(**config), ssc.from_config(parent(**config).config)
    for scheduler in (plain, scaled):
        scheduler.set_timesteps(5)
    x, levels = torch.randn(2, 3, 4, 4), levels_of(plain)
    assert torch.equal(walk(scaled, field, levels, x), walk(plain, field, levels, x))


@schedulers
def test_a_grid_that_is_shifted_is_not_shifted_again(kind: str) -> None:
    parent, ssc, config = SCHEDULERS[kind]
    plain = parent(**config)
    scaled = ssc.from_config(ssc.from_config(plain.config, s0=1.1).config)
    for scheduler in (plain, scaled):
        scheduler.set_timesteps(7)
    assert torch.equal(scaled.sigmas, plain.sigmas) and torch.equal(scaled.timesteps, plain.timesteps)


def test_each_token_is_scaled_at_its_own_time() -> None:
    scheduler = SSCFlowMatchEulerDiscreteScheduler(s0=1.5)
    scheduler.set_timesteps(4)
    times = torch.tensor([[1000.0, 500.25]])
    plain = FlowMatchEulerDiscreteScheduler()
    plain.set_timesteps(4)
    x, velocity = torch.randn(1, 2, 3), torch.randn(1, 2, 3)
    scaled = scheduler.step(velocity, scheduler.timesteps[0], x, per_token_timesteps=times).prev_sample
    by_hand = velocity * torch.tensor([1.5, 1 + 0.5 * 0.50025])[None, :, None]
    expected = plain.step(by_hand, plain.timesteps[0], x, per_token_timesteps=times).prev_sample
    torch.testing.assert_close(scaled, expected)


def test_a_grid_that_counts_progress_has_its_noise_end_at_zero() -> None:
    """Mochi's: its levels rise, and the first step is still the one that s0 scales."""
    scheduler = SSCFlowMatchEulerDiscreteScheduler(invert_sigmas=True, s0=1.5)
    scheduler.set_timesteps(4)
    level, after = scheduler.sigmas[:2].tolist()
    x = torch.zeros(1, 2)
    moved = scheduler.step(torch.ones(1, 2), scheduler.timesteps[0], x).prev_sample
    torch.testing.assert_close(moved, torch.full((1, 2), (after - level) * (1.5 - 0.5 * level)))


@schedulers
def test_half_precision_stays_half_precision(kind: str) -> None:
    _, ssc, config = SCHEDULERS[kind]
    scheduler = ssc(**config, s0=1.1)
    scheduler.set_timesteps(3)
    x = torch.randn(1, 4, dtype=torch.bfloat16)
    assert walk(scheduler, field, levels_of(scheduler), x).dtype == torch.bfloat16


def test_the_place_of_a_time_step_is_not_taken_for_the_time_step() -> None:
    scheduler = SSCFlowMatchEulerDiscreteScheduler(s0=1.1)
    scheduler.set_timesteps(3)
    with pytest.raises(ValueError, match="not its place"):
        scheduler.step(torch.ones(1, 2), 0, torch.ones(1, 2))


# --- what pipelines and files ask of a scheduler ----------------------------------------------------------------------


@schedulers
def test_what_is_saved_keeps_the_scale(kind: str, tmp_path: Any) -> None:
    _, ssc, config = SCHEDULERS[kind]
    ssc(**config, s0=1.2, s1=0.95, profile="quad_in").save_pretrained(tmp_path)
    again = ssc.from_pretrained(tmp_path)
    assert {key: again.config[key] for key in ("s0", "s1", "profile", *config)} == {
        "s0": 1.2, "s1": 0.95, "profile": "quad_in", **config
    }  # fmt: skip
    assert ssc.from_pretrained(tmp_path, s0=1.05).config.s0 == 1.05


@schedulers
def test_pipelines_see_the_parents_signatures(kind: str) -> None:
    """They pass `generator`, `sigmas` and `mu` to schedulers whose signatures have them."""
    parent, ssc, _ = SCHEDULERS[kind]
    for method in ("step", "set_timesteps"):
        assert inspect.signature(getattr(ssc, method)) == inspect.signature(getattr(parent, method))


def test_the_noise_of_a_stochastic_solver_is_the_generators() -> None:
    scheduler = SSCDPMSolverMultistepScheduler(**OF_FLOW, algorithm_type="sde-dpmsolver++", s0=1.1)
    drawn = []
    for _ in range(2):
        scheduler.set_timesteps(2)
        step = scheduler.step(
            torch.ones(1, 4), scheduler.timesteps[0], torch.ones(1, 4), generator=torch.Generator().manual_seed(3)
        )
        drawn.append(step.prev_sample)
    assert torch.equal(*drawn)


@schedulers
@pytest.mark.parametrize("wrong", [{"s0": 0.0}, {"s1": -1.0}, {"profile": "steep"}])
def test_a_wrong_scale_is_refused_by_name(kind: str, wrong: dict[str, Any]) -> None:
    _, ssc, config = SCHEDULERS[kind]
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ssc(**config, **wrong)


@pytest.mark.parametrize("config", [{}, {"prediction_type": "flow_prediction"}, {**OF_FLOW, "use_karras_sigmas": True}])
def test_dpm_is_refused_where_nothing_flows(config: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="flow_prediction on flow sigmas"):
        SSCDPMSolverMultistepScheduler.from_config(DPMSolverMultistepScheduler(**config).config, s0=1.1)


# --- in real pipelines ------------------------------------------------------------------------------------------------


def ssc_of(name: str) -> Any:
    return SCHEDULERS[OF_PIPELINE[name]][1]


def test_the_five_lines_of_a_user_of_sd3_and_flux() -> None:
    for name in ("sd3", "flux"):
        pipe, plain = tiny_pipelines.PIPELINES[name](), pipeline(name)
        pipe.transformer.load_state_dict(plain.transformer.state_dict())

        from flowexp.integrations.diffusers import SSCFlowMatchEulerDiscreteScheduler as SSC

        pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=1.1)
        images = pipe("a cat", num_inference_steps=2, height=16, width=16, **tiny_pipelines.CALLS[name]).images
        assert images[0].size == (16, 16)
        assert not torch.equal(draw(pipe, name), draw(plain, name))


def test_the_five_lines_of_a_user_of_sana() -> None:
    pipe, plain = tiny_pipelines.PIPELINES["sana"](), pipeline("sana")
    pipe.transformer.load_state_dict(plain.transformer.state_dict())

    from flowexp.integrations.diffusers import SSCDPMSolverMultistepScheduler as SSC

    pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=1.1)
    images = pipe("a cat", num_inference_steps=2, height=32, width=32, **tiny_pipelines.CALLS["sana"]).images
    assert images[0].size == (32, 32)
    assert not torch.equal(draw(pipe, "sana"), draw(plain, "sana"))


@pipelines
def test_a_pipeline_at_scale_one_draws_what_it_drew(name: str, with_scheduler: Any) -> None:
    before = draw(pipeline(name), name)
    pipe = with_scheduler(name, ssc_of(name).from_config(pipeline(name).scheduler.config))
    assert torch.equal(draw(pipe, name), before)


@pipelines
def test_the_guided_velocity_is_scaled_and_not_what_guidance_is_made_of(
    name: str, with_scheduler: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    parent, ssc, _ = SCHEDULERS[OF_PIPELINE[name]]
    seen: list[Tensor] = []
    own = parent.step

    def spy(self: Any, model_output: Tensor, *args: Any, **keys: Any) -> Any:
        seen.append(model_output.clone())
        return own(self, model_output, *args, **keys)

    options = {"guidance_scale": 4.0, "num_inference_steps": 1}
    spied = type("Spied", (parent,), {"step": spy})  # the pipeline's guided velocity
    draw(with_scheduler(name, spied.from_config(pipeline(name).scheduler.config)), name, **options)
    scheduler = ssc.from_config(pipeline(name).scheduler.config, s0=1.5)
    pipe = with_scheduler(name, scheduler)
    start: list[Tensor] = []
    monkeypatch.setattr(ssc, "step", _noting(ssc.step, start))
    after = draw(pipe, name, **options)
    level = scheduler.sigmas[0]
    torch.testing.assert_close(after, start[0] - level * (1 + 0.5 * level) * seen[0], rtol=1e-4, atol=1e-5)


def _noting(step: Any, start: list[Tensor]) -> Any:
    """The step of a scheduler that also notes the state it begins with."""

    def noting(self: Any, model_output: Tensor, t: Any, sample: Tensor, *args: Any, **keys: Any) -> Any:
        start.append(sample.clone())
        return step(self, model_output, t, sample, *args, **keys)

    return noting


@pipelines
def test_a_saved_pipeline_comes_back_with_its_scale(name: str, with_scheduler: Any, tmp_path: Any) -> None:
    pipe = with_scheduler(name, ssc_of(name).from_config(pipeline(name).scheduler.config, s0=1.15, profile="cosine"))
    before = draw(pipe, name)
    pipe.save_pretrained(tmp_path)
    again = DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again.scheduler) is ssc_of(name)
    assert (again.scheduler.config.s0, again.scheduler.config.profile) == (1.15, "cosine")
    torch.testing.assert_close(draw(again, name), before)


def test_it_comes_off_by_the_parents_own_from_config() -> None:
    scheduler = SSCFlowMatchEulerDiscreteScheduler(shift=3.0, s0=1.1)
    assert FlowMatchEulerDiscreteScheduler.from_config(scheduler.config).config.shift == 3.0
