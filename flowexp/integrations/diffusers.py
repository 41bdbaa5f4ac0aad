"""SSC in diffusers' flow-matching pipelines (SANA, SD3, FLUX, ...), and our DiT and SiT as a pipeline of diffusers.

    from flowexp.integrations.diffusers import SSCFlowMatchEulerDiscreteScheduler as SSC
    pipe.scheduler = SSC.from_config(pipe.scheduler.config, s0=1.1)

A pipeline hands its scheduler the guided velocity, and the scheduler multiplies it by SSC's scale (VD eq. 10) before
the parent's step; nothing else changes. The scale is read at the noise level at which the network was called: the
grid's `sigmas`, which the parent has shifted already. With s0 = s1 = 1 every step is the parent's, bit for bit.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.backbones.embedders import time_sinusoid
from flowexp.flow.profiles import create_profile, scale_schedule
from flowexp.flow.time import LEVELS, noise_level, progress
from flowexp.integrations.dit_weights import check_exportable, to_diffusers, transformer_config
from flowexp.integrations.published import PICTURES, PublishedModel

try:
    from diffusers import (
        AutoencoderKL,
        ConfigMixin,
        DiTPipeline,
        DiTTransformer2DModel,
        DPMSolverMultistepScheduler,
        FlowMatchEulerDiscreteScheduler,
        FlowMatchHeunDiscreteScheduler,
        ModelMixin,
        SchedulerMixin,
    )
    from diffusers.configuration_utils import register_to_config
    from diffusers.models.autoencoders.vae import DecoderOutput
except ImportError as error:
    raise ImportError(
        f"flowexp.integrations.diffusers needs diffusers ({error}): pip install 'flowexp[diffusers]'"
    ) from error

__all__ = [
    "FlowDiTTransformer2DModel",
    "ModelMixin",  # by these two `DiffusionPipeline.from_pretrained` knows that this file has models and schedulers
    "NoAutoencoder",
    "SSCDPMSolverMultistepScheduler",
    "SSCFlowMatchEulerDiscreteScheduler",
    "SSCFlowMatchHeunDiscreteScheduler",
    "SchedulerMixin",
    "save_pipeline",
]
SCALE = {"s0": 1.0, "s1": 1.0, "profile": "linear"}  # SSC's keys in a scheduler's config, and their values without SSC
_GRIDS_OF_DIFFUSION = ("use_karras_sigmas", "use_exponential_sigmas", "use_beta_sigmas", "use_lu_lambdas")  # of DPM


def _with_keys(parent: type, keys: Mapping[str, Any], prepare: Callable[[Any], None]) -> Callable[..., None]:
    """The parent's constructor with `keys` beside its own, which diffusers reads off the signature; then `prepare`."""

    @functools.wraps(parent.__init__)  # type: ignore[misc]
    def initialise(self: Any, *args: Any, **given: Any) -> None:
        own = {key: given.pop(key, default) for key, default in keys.items()}
        parent.__init__(self, *args, **given)  # type: ignore[misc]
        self.register_to_config(**own)
        prepare(self)

    signature = inspect.signature(parent.__init__)  # type: ignore[misc]
    further = [inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY, default=value) for key, value in keys.items()]
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


class SSCFlowMatchEulerDiscreteScheduler(FlowMatchEulerDiscreteScheduler):
    """Euler's method with SSC: the scheduler of SD3, FLUX and most other flow-matching pipelines.

    s0, s1, profile: the scale at the noise end, at the data end, and the shape between (VD Table 7). All other keys are
    those of the parent. Raises ValueError for a scale that is not positive or a profile that is not known.
    """

    __init__ = _with_keys(FlowMatchEulerDiscreteScheduler, SCALE, _check)
    step = _with_scaled_velocity(FlowMatchEulerDiscreteScheduler)

    def scale_model_input(self, sample: Tensor, timestep: Any = None) -> Tensor:
        """`sample` (B, C, H, W), unchanged: flow matching scales no input, and DiTPipeline calls this."""
        return sample


class SSCFlowMatchHeunDiscreteScheduler(FlowMatchHeunDiscreteScheduler):
    """Heun's method with SSC: both velocities of a step are scaled, each at its own level. Keys as in Euler's."""

    __init__ = _with_keys(FlowMatchHeunDiscreteScheduler, SCALE, _check)
    step = _with_scaled_velocity(FlowMatchHeunDiscreteScheduler)


class SSCDPMSolverMultistepScheduler(DPMSolverMultistepScheduler):
    """DPM-Solver++ on flow sigmas with SSC, the scheduler of SANA; the history holds scaled velocities.

    Keys as in Euler's. Raises ValueError for a config that is not one of flow matching.
    """

    __init__ = _with_keys(DPMSolverMultistepScheduler, SCALE, _check)
    step = _with_scaled_velocity(DPMSolverMultistepScheduler)


# --- our networks as theirs -------------------------------------------------------------------------------------------


class Sinusoid(nn.Module):
    """[cos | sin] of DiT's and SiT's code, at frequencies 10000^(-k / 128), for the time steps of a scheduler.

    time_scale: the factor on t in [0, 1] of the network, 1000 of DiT and 1 of SiT; a time step is 1000 t.
    """

    def __init__(self, time_scale: float) -> None:
        super().__init__()
        self.factor = time_scale / LEVELS

    def forward(self, timestep: Tensor) -> Tensor:
        return time_sinusoid(self.factor * timestep.float())


def _give_sinusoid(transformer: Any) -> None:
    for block in transformer.transformer_blocks:
        block.norm1.emb.time_proj = Sinusoid(transformer.config.time_scale)


class FlowDiTTransformer2DModel(DiTTransformer2DModel):
    """diffusers' DiT transformer, key by key, with the sinusoid of t that DiT's and SiT's code has.

    diffusers' own has frequencies 10000^(-k / 127) and reads time steps of 0 to 1000 alone: no weights make it the same
    function of t. time_scale: see `Sinusoid`; all other keys are those of the parent.
    """

    __init__ = _with_keys(DiTTransformer2DModel, {"time_scale": 1000.0}, _give_sinusoid)


class NoAutoencoder(ModelMixin, ConfigMixin):
    """In place of an autoencoder, for a network that draws pictures: what is decoded is what was given."""

    config_name = "config.json"

    @register_to_config
    def __init__(self, scaling_factor: float = 1.0) -> None:
        super().__init__()
        self.nothing = nn.Parameter(torch.zeros(1))  # by which pipelines tell its type and device

    def decode(self, latents: Tensor, **_: Any) -> DecoderOutput:
        """`latents` (B, C, H, W), pictures in [-1, 1], as they are."""
        return DecoderOutput(sample=latents)


def save_pipeline(model: PublishedModel, folder: Path, autoencoder: Path | None = None) -> None:
    """Writes a pipeline folder of diffusers' DiTPipeline with Euler's method and the SSC of the model's sampler.

    autoencoder: folder of an AutoencoderKL that goes into it, for a network of latents.

    Raises:
        ValueError: diffusers has no such network, or `autoencoder` is left out or holds none for the network's latents.
    """
    backbone = check_exportable(model.backbone, model.interpolant, model.parameterization)
    transformer = FlowDiTTransformer2DModel(**transformer_config(backbone))
    transformer.load_state_dict(to_diffusers(backbone))
    how = model.sampler
    profile = create_profile(how.profile).name
    scheduler = SSCFlowMatchEulerDiscreteScheduler(shift=how.shift, s0=how.s0, s1=how.s1, profile=profile)
    vae = _autoencoder(autoencoder, model)
    DiTPipeline(transformer=transformer, vae=vae, scheduler=scheduler).save_pretrained(folder)


def _autoencoder(folder: Path | None, model: PublishedModel) -> Any:
    space, channels = model.about.get("space", PICTURES), model.backbone.channels
    if folder is None and space != PICTURES:
        raise ValueError(
            f"this network draws latents of {space}: give autoencoder=FOLDER, an AutoencoderKL of diffusers"
        )
    if folder is None:
        return NoAutoencoder()
    try:
        autoencoder = AutoencoderKL.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise ValueError(f"autoencoder={folder} is no folder of an AutoencoderKL of diffusers ({error})") from error
    if (found := autoencoder.config.latent_channels) != channels:
        raise ValueError(f"autoencoder={folder} decodes {found} channels, and the network has {channels}")
    return autoencoder
