"""A training step and samples of flow matching by torchcfm and by diffusers, on a network of flowexp's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from benchmarks.sizes import Size
from benchmarks.steps import trained_parameters
from flowexp.backbones import Backbone
from flowexp.flow.velocity import Reversed


def torchcfm_step(network: Backbone, data: Tensor, size: Size) -> Callable[[], None]:
    """A function that takes the next step as torchcfm's example for CIFAR-10 does, on data (B, C, H, W).

    Its path has the data at t = 1. The example's EMA goes through the tensors one by one.
    """
    from torchcfm.conditional_flow_matching import ConditionalFlowMatcher

    matcher = ConditionalFlowMatcher(sigma=0.0)
    average = {name: parameter.detach().clone() for name, parameter in trained_parameters(network).items()}

    @torch.no_grad()
    def follow() -> None:
        for name, parameter in trained_parameters(network).items():
            average[name].copy_(average[name] * 0.9999 + parameter * (1 - 0.9999))

    def loss() -> Tensor:
        return torchcfm_loss(matcher, network, data, torch.randn_like(data), None)

    return stepper(network, loss, follow, size)


def torchcfm_loss(matcher: Any, network: Backbone, data: Tensor, noise: Tensor, t: Tensor | None) -> Tensor:
    """The mean squared error; t (B,) is torchcfm's, 1 at the data, and drawn by it if None."""
    t, xt, velocity = matcher.sample_location_and_conditional_flow(noise, data, t)
    return (Reversed(network)(xt, t).float() - velocity).square().mean()


def diffusers_step(network: Backbone, data: Tensor, size: Size) -> Callable[[], None]:
    """A function that takes the next step as the examples of diffusers train Stable Diffusion 3, on data (B, C, H, W).

    Uniform times, no weighting, its EMAModel. The examples look each noise level up among the scheduler's thousand.
    """
    from diffusers import FlowMatchEulerDiscreteScheduler
    from diffusers.training_utils import EMAModel, compute_density_for_timestep_sampling

    scheduler, average = FlowMatchEulerDiscreteScheduler(), EMAModel(network.parameters(), decay=0.9999)
    num_times = scheduler.config.num_train_timesteps

    def loss() -> Tensor:
        places = compute_density_for_timestep_sampling("none", len(data)) * num_times
        times = scheduler.timesteps[places.long()].to(data.device)
        return diffusers_loss(scheduler, network, data, torch.randn_like(data), times)

    return stepper(network, loss, lambda: average.step(network.parameters()), size)


def diffusers_loss(scheduler: Any, network: Backbone, data: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """The weighted mean squared error at times (B,) of the scheduler's, which are 1000 t."""
    from diffusers.training_utils import compute_loss_weighting_for_sd3

    known = scheduler.timesteps.to(times.device)
    rows = [int((known == time).nonzero()) for time in times]
    sigmas = scheduler.sigmas.to(times.device)[rows, None, None, None]
    velocity = network((1 - sigmas) * data + sigmas * noise, times / scheduler.config.num_train_timesteps).float()
    weights = compute_loss_weighting_for_sd3("none", sigmas)
    return (weights * (velocity - (noise - data)).square()).flatten(1).mean(1).mean()


def stepper(
    network: Backbone, loss: Callable[[], Tensor], follow: Callable[[], None], size: Size
) -> Callable[[], None]:
    """A function that takes the next step down `loss`: backward, clip, AdamW with flowexp's numbers, EMA (`follow`)."""
    parameters = list(trained_parameters(network).values())
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01, fused=True)

    def step() -> None:
        with size.autocast():
            value = loss()
        optimizer.zero_grad()
        value.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        follow()

    return step


class _TowardsData(nn.Module):
    """The network's field for torchdyn, whose time ends at the data."""

    def __init__(self, network: Backbone) -> None:
        super().__init__()
        self.network = network

    def forward(self, t: Tensor, x: Tensor, *_: Any, **__: Any) -> Tensor:
        return Reversed(self.network)(x, t.expand(len(x))).float()


def torchcfm_samples(network: Backbone, size: Size) -> Callable[[], Tensor]:
    """A function that draws one batch as torchcfm's example does: by Euler of torchdyn."""
    from torchdyn.core import NeuralODE

    ode = NeuralODE(_TowardsData(network), solver="euler", sensitivity="adjoint")
    times = torch.linspace(0, 1, size.solver_steps + 1, device=size.device)
    shape = (size.sample_batch_size, size.channels, size.resolution, size.resolution)

    @torch.no_grad()
    def sample() -> Tensor:
        with size.autocast():
            return ode.trajectory(torch.randn(shape, device=size.device), times)[-1]

    return sample


def diffusers_samples(network: Backbone, size: Size) -> Callable[[], Tensor]:
    """A function that draws one batch by diffusers' Euler on the same field, in equal steps as its pipeline of Flux."""
    from diffusers import FlowMatchEulerDiscreteScheduler

    scheduler = FlowMatchEulerDiscreteScheduler()
    levels = [1 - step / size.solver_steps for step in range(size.solver_steps)]
    shape = (size.sample_batch_size, size.channels, size.resolution, size.resolution)

    @torch.no_grad()
    def sample() -> Tensor:
        scheduler.set_timesteps(sigmas=levels, device=size.device)
        x = torch.randn(shape, device=size.device)
        with size.autocast():  # outside of the loop: at its end the weights in bf16 are forgotten
            for t in scheduler.timesteps:
                velocity = network(x, (t / 1000).expand(len(x)))
                x = scheduler.step(velocity.float(), t, x).prev_sample
        return x

    return sample
