"""A small network, a step that has read its blocks, and where the gradient of a term goes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from flowexp.backbones import Backbone, create_backbone
from flowexp.flow.interpolants import Linear
from flowexp.flow.parameterization import Parameterization, VelocityNetwork
from flowexp.objectives.terms import Step, Tapped, Term
from flowexp.training.step_draws import StepKey, TrainingBatch


@pytest.fixture
def backbone() -> Backbone:
    """4 blocks whose output is not zero, on a grid of 4 x 4 tokens of 16."""
    network = create_backbone("dit_nano2", resolution=8, channels=1, depth=4, width=16, heads=2)
    with torch.no_grad():
        for parameter in network.parameters():
            if parameter.requires_grad:
                parameter.normal_(std=0.2)
    return network


@pytest.fixture
def make_step(backbone: Backbone) -> Callable[..., Step]:
    """A step of rows at mixed noise levels; `rows` are those that a tap was reached by."""

    def make(*taps: int, num: int = 6, rows: list[int] | None = None, channels: int = 1, **parts) -> Step:
        generator = torch.Generator().manual_seed(1)
        data = torch.rand(num, channels, 8, 8, generator=generator) * 2 - 1
        noise, t = torch.randn(data.shape, generator=generator), torch.linspace(0.1, 0.9, num)
        xt = Linear().interpolate(data, noise, t)
        picked = torch.arange(num) if rows is None else torch.tensor(rows, dtype=torch.long)
        read = backbone.features(xt[picked, :1], t[picked], taps=taps) if taps else {}
        features = {tap: Tapped(tokens, None if rows is None else picked) for tap, tokens in read.items()}
        velocity = noise - data
        key = parts.pop("key", StepKey(seed=3, step=7))
        batch = TrainingBatch(data, noise, t, key=key, **parts)
        network = VelocityNetwork(backbone, Linear(), Parameterization())
        return Step(batch, xt, t, network, velocity, velocity, features)

    return make


@pytest.fixture
def reached(backbone: Backbone) -> Callable[[Tensor, Term], set[str]]:
    """The parameters of the network ("blocks.0", ...) and of the term ("term.projector", ...) that get a gradient."""

    def reach(loss: Tensor, term: Term) -> set[str]:
        loss.backward()
        found = set()
        for prefix, module in (("", backbone), ("term.", term)):
            for name, parameter in module.named_parameters():
                if parameter.grad is not None and parameter.grad.any():
                    found.add(prefix + ".".join(name.split(".")[: 2 if name.startswith(("blocks", "student")) else 1]))
        return found

    return reach
