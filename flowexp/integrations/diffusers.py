"""Schedulers for diffusers' flow-matching pipelines (SANA, SD3, FLUX, ...) that add SSC and change nothing else.

    from flowexp.integrations.diffusers import SSCFlowMatchEulerDiscreteScheduler as SSC
    pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=1.1)

A pipeline hands its scheduler the guided velocity, and the scheduler multiplies it by SSC's scale (VD eq. 10) before
the parent's step. The scale is read at the noise level at which the network was called: the grid's `sigmas`, which the
parent has shifted already. With s0 = s1 = 1 every step is the parent's, bit for bit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from flowexp.flow.profiles import create_profile, scale_schedule
from flowexp.flow.time import noise_level, progress

try:
    from diffusers import (
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        SchedulerMixin,
    )
except ImportError as error:
    raise ImportError(f"flowexp's schedulers need diffusers ({error}): pip install 'flowexp[diffusers]'") from error

__all__ = [
    "SSCDPMSolverMultistepScheduler",
    "SSCFlowMatchEulerDiscreteScheduler",
    "SSCFlowMatchHeunDiscreteScheduler",
    "SchedulerMixin",  # by which `DiffusionPipeline.from_pretrained` knows that this file has schedulers
]
SCALE = {"s0": 1.0, "s1": 1.0, "profile": "linear"}  # SSC's keys in a scheduler's config, and their values without SSC
_GRIDS_OF_DIFFUSION = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")  # of DPM


def _with_scale(parent: type) -> Callable[..., None]:
    """The parent's constructor with SSC's keys beside its own, which diffusers reads off the signature."""

    @functools.wraps(parent.__init__)  # type: ignore[misc]
    def initialise(self: Any, *args: Any, **keys: Any) -> None:
        scale = {key: keys.pop(key, default) for key, default in SCALE.items()}
        parent.__init__(self, *args, **keys)  # type: ignore[misc]
        self.register_to_config(**scale)
        _check(self)

    signature = inspect.signature(parent.__init__)  # type: ignore[misc]
    further = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in SCALE.items()]
    parameters = [*signature.parameters.values(), *further]
    initialise.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return initialise


def _with_scaled_velocity(parent: type) -> Callable[..., Any]:
    """The parent's step for a scaled velocity; its signature too, by which pipelines choose what they pass."""

    @functools.wraps(parent.step)  # type: ignore[attr-defined]
    def step(self: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **keys: Any) -> Any:
        if not self.config.s0 == self.config.s1 == 1:
            model_output = _scaled(self, model_output, timestep, keys.get("per_token_timesteps"))
        return parent.step(self, model_output, timestep, sample, *args, **keys)  # type: ignore[attr-defined]

    return step


class SSCFlowMatchEulerDiscreteScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler's method with SSC: the scheduler of SD3, FLUX and most other flow-matching pipelines.

    s0, s1, profile: the scale at the noise end, at the data end, and the shape between (VD Table 7). All other keys are
    those of the parent. Raises ValueError for a scale that is not positive or a profile that is not known.
    """

    __init__ = _with_scale(FlowMatchEulerDiscreteScheduler)
    step = _with_scaled_velocity(FlowMatchEulerDiscreteScheduler)


class SSCFlowMatchHeunDiscreteScheduler(FlowMatchHeunDiscreteScheduler):
    """Heun's method with SSC: both velocities of a step are scaled, each at its own level. Keys as in Euler's."""

    __init__ = _with_scale(FlowMatchHeunDiscreteScheduler)
    step = _with_scaled_velocity(FlowMatchHeunDiscreteScheduler)


class SSCDPMSolverMultistepScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ on flow sigmas with SSC, the scheduler of SANA; the history holds scaled velocities.

    Keys as in Euler's. Raises ValueError for a config that is not one of flow matching.
    """

    __init__ = _with_scale(DPMSolverMultistepScheduler)
    step = _with_scaled_velocity(DPMSolverMultistepScheduler)


def _check(scheduler: Any) -> None:
    config = scheduler.config
    create_profile(config.profile)
    for key in ("s0", "s1"):
        if not config[key] > 0:
            raise ValueError(f"{key} scales the velocity and must be positive, got {config[key]}")
    if not isinstance(scheduler, DPMSolverMultistepScheduler):
        return
    others = [key for key in _GRIDS_OF_DIFFUSION if config[key]]
    if config.prediction_type != "flow_prediction" or not config.use_flow_sigmas or others:
        named = "".join(f", {key}=True" for key in others)
        raise ValueError(
            "SSC scales a velocity of flow matching: it is for pipelines with flow_prediction on flow sigmas alone, as "
            f"SANA's; got prediction_type={config.prediction_type}, use_flow_sigmas={config.use_flow_sigmas}{named}"
        )


def _scaled(scheduler: Any, velocity: Tensor, timestep: Any, per_token_timesteps: Tensor | None) -> Tensor:
    """The velocity times SSC's scale at the level of this call, in the velocity's type."""
    config, level = scheduler.config, _level(scheduler, timestep, per_token_timesteps)
    scale = scale_schedule(config.profile, config.s0, config.s1)(progress(level))
    return velocity * scale.to(velocity.device, velocity.dtype)


def _level(scheduler: Any, timestep: Any, per_token_timesteps: Tensor | None) -> Tensor:
    """The noise level at which the network was called: one number, or one for each token, (B, N, 1).

    It is not timestep / 1000, which DPM-Solver rounds to whole numbers.
    """
    if per_token_timesteps is not None:
        return (per_token_timesteps / scheduler.config.num_train_timesteps)[..., None]
    if scheduler.step_index is None:
        try:
            scheduler._init_step_index(timestep)
        except IndexError as error:
            raise ValueError(
                f"timestep must be one of scheduler.timesteps, and not its place; got {timestep}"
            ) from error
    level = scheduler.sigmas[scheduler.step_index]
    return noise_level(level) if scheduler.config.get("invert_sigmas") else level  # Mochi's grid is one of progress
