"""On an accelerator no training step and no sample mixes devices, and none waits to be told a value."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from flowexp.backbones import Backbone, create_backbone
from flowexp.flow.interpolants import GVP, SBDMVP, Interpolant, Linear
from flowexp.flow.parameterization import Parameterization
from flowexp.flow.sampler import Sampler
from flowexp.flow.solvers import SOLVERS
from flowexp.flow.time_samplers import LogitNormal, Stratified
from flowexp.objectives import FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching
from flowexp.objectives.terms import Dispersive, SelfDistillation
from flowexp.training.couplings import MinibatchOT
from flowexp.training.optimization import clip_gradients, create_optimizer
from flowexp.training.step_draws import StepKey

sys.path.append(str(Path(__file__).parents[1]))
from pretended_accelerator import AskedTheDevice, moved, pretended_accelerator

pytestmark = pytest.mark.slow

BATCH = 16


def dit(depth: int = 3, **options: Any) -> Backbone:
    return create_backbone("dit_nano2", resolution=8, channels=1, depth=depth, width=16, heads=2, **options)


NETWORKS: dict[str, Callable[[], Backbone]] = {
    "dit": dit,
    "dit of classes": lambda: dit(num_classes=10),
    "unet": lambda: create_backbone("unet_nano", resolution=8, channels=1),
    "mmdit": lambda: create_backbone("mmdit_nano", resolution=8, channels=1, text_length=3, text_dim=4),
    "self-conditioned dit": lambda: dit(self_conditioning=2),
}
OBJECTIVES: dict[str, Callable[..., FlowMatching]] = {
    "fm": FlowMatching,
    "lcf": lambda backbone, **parts: LocalContrastiveFlow(backbone=backbone, T_min=300, **parts),
    "lcf, eq. 14, fresh noise": lambda backbone, **parts: LocalContrastiveFlow(
        backbone=backbone, T_min=300, denominator="eq14", shared_noise=False, normalize=True, **parts
    ),
    "lcf, no row below T_min": lambda backbone, **parts: LocalContrastiveFlow(backbone=backbone, T_min=1, **parts),
    "fm with contrast": lambda backbone, **parts: LocalContrastiveFlow(
        backbone=backbone, T_min=300, regress_below=True, **parts
    ),
    "mafm": lambda backbone, **parts: MagnitudeAwareFlowMatching(backbone=backbone, **parts),
}
TERMS = {"dispersive": Dispersive, "self_distillation": SelfDistillation}


def step(module: FlowMatching, device: torch.device) -> None:
    """A training step without its backward pass, and without the one question that it asks: is the gradient finite."""
    data = torch.randn(BATCH, 1, 8, 8, device=device)
    label = torch.zeros(BATCH, 3, 4, device=device) if module.backbone.takes == "text" else None
    label = torch.zeros(BATCH, dtype=torch.long, device=device) if label is None else label
    drawn = module.draw(data, label, StepKey(seed=0, step=1))
    losses = module.losses(drawn)
    module.note(drawn, losses)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    clip_gradients(module.parameters())
    optimizer = create_optimizer(module.make_optimizer, module.named_parameters())
    optimizer.step()
    module.after_step()


def trained_on(device: torch.device, module: FlowMatching) -> None:
    moved(module)
    module.on_train_start()
    step(module, device)


@pytest.mark.parametrize(
    ("network", "objective"),
    [("dit", name) for name in OBJECTIVES] + [(name, "lcf") for name in NETWORKS if name != "dit"],
)
def test_a_training_step_never_waits_for_the_accelerator(network: str, objective: str) -> None:
    with pretended_accelerator() as device:
        trained_on(device, OBJECTIVES[objective](NETWORKS[network]()))


@pytest.mark.parametrize("term", TERMS)
@pytest.mark.parametrize("objective", ["fm", "lcf"])
def test_nor_does_it_with_a_term(term: str, objective: str) -> None:
    with pretended_accelerator() as device:
        trained_on(device, OBJECTIVES[objective](dit(), terms={term: TERMS[term]()}))


@pytest.mark.parametrize("prediction", ["velocity", "data", "noise"])
@pytest.mark.parametrize("interpolant", [Linear, GVP, SBDMVP])
def test_nor_on_any_path(prediction: str, interpolant: type[Interpolant]) -> None:
    with pretended_accelerator() as device:
        path, law = interpolant(), LogitNormal() if prediction == "data" else Stratified()
        parts = {"interpolant": path, "time_sampler": law}
        trained_on(device, FlowMatching(dit(1), parameterization=Parameterization(prediction=prediction), **parts))


def test_optimal_transport_asks_for_its_pairs() -> None:
    with pytest.raises(AskedTheDevice), pretended_accelerator() as device:
        trained_on(device, FlowMatching(dit(), coupling=MinibatchOT()))


@pytest.mark.parametrize("solver", [name for name in SOLVERS if name != "dopri5"])  # whose steps depend on its error
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"s0": 1.1},
        {"s0": 1.1, "ssc_target": "drift"},
        {"guidance_scale": 1.5, "guidance_channels": 1},
        {"final_jump": 0.02},
    ],
    ids=str,
)
def test_sampling_never_waits_for_the_accelerator(solver: str, settings: dict[str, Any]) -> None:
    with pretended_accelerator():
        module = FlowMatching(dit(1, num_classes=10), sampler=Sampler(solver=solver, num_steps=2, **settings))
        moved(module)
        images = module.sample(range(4), seed=0).images
        assert images.device.type == "cuda"
        assert images.shape == (4, 1, 8, 8)
