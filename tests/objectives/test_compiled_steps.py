"""`compile=true` and `trainer.precision=bf16-mixed` change what a training step costs, not what it computes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

from flowexp.backbones import Backbone, create_backbone
from flowexp.cli.assembly.building import build_datamodule, build_module
from flowexp.cli.assembly.hardware import resolve_precision
from flowexp.cli.recipes.runs import compose_run
from flowexp.objectives import FlowMatching, LocalContrastiveFlow, MagnitudeAwareFlowMatching
from flowexp.objectives.terms import Dispersive
from flowexp.training.step_draws import TrainingBatch

OBJECTIVES: dict[str, Callable[[Backbone], FlowMatching]] = {
    "lcf": lambda backbone: LocalContrastiveFlow(backbone=backbone, T_min=50),
    "mafm": lambda backbone: MagnitudeAwareFlowMatching(backbone=backbone),
    "lcf and dispersive": lambda backbone: LocalContrastiveFlow(
        backbone=backbone, T_min=50, terms={"dispersive": Dispersive()}
    ),
}
ANCHORS = ([0.01, 0.5, 0.03, 0.9, 0.2, 0.7], [0.02, 0.01, 0.04, 0.9, 0.2, 0.7], [0.3, 0.5, 0.03, 0.04, 0.2, 0.7])


def backbone() -> Backbone:
    """4 blocks whose output is not zero."""
    torch.manual_seed(0)
    network = create_backbone("dit_nano2", resolution=8, channels=1, depth=4, width=32, heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    return network


def batches() -> Iterator[TrainingBatch]:
    """Batches with 2, 3 and again 2 rows below noise level 0.05."""
    for number, t in enumerate(ANCHORS):
        data, noise = torch.randn(2, len(t), 1, 8, 8, generator=torch.Generator().manual_seed(number))
        yield TrainingBatch(data=data, noise=noise, t=torch.tensor(t))


def steps(module: FlowMatching, precision: str) -> list[tuple[Tensor, Tensor]]:
    """Loss and all gradients of every batch."""
    found = []
    for batch in batches():
        module.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16-mixed"):
            loss = module.losses(batch).loss
        loss.backward()
        found.append((loss.detach(), torch.cat([p.grad.flatten() for p in module.parameters() if p.grad is not None])))
    return found


@pytest.fixture
def counter() -> Iterator[Any]:
    """A compiler that traces forward and backward, counts its graphs, and leaves the arithmetic to PyTorch."""
    from torch._dynamo.testing import CompileCounterWithBackend

    torch._dynamo.reset()
    yield CompileCounterWithBackend("aot_eager")
    torch._dynamo.reset()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("objectives", "precision"), [(["lcf and dispersive"], "bf16-mixed"), (["lcf", "mafm"], "32-true")]
)
def test_compiled_blocks_give_the_same_steps_whatever_the_objective_and_the_number_of_anchors(
    objectives: list[str], precision: str, counter: Any
):
    network = backbone()
    modules = [OBJECTIVES[objective](network) for objective in objectives]
    expected = [step for module in modules for step in steps(module, precision)]
    network.compile_blocks(backend=counter)
    share = 1e-4 if precision == "32-true" else 0.03  # this backend rounds GELU's products, which Inductor fuses
    compiled = [step for module in modules for step in steps(module, precision)]
    for (loss, gradient), (expected_loss, expected_gradient) in zip(compiled, expected, strict=True):
        assert abs(loss - expected_loss) < share * expected_loss
        assert (gradient - expected_gradient).norm() < share * expected_gradient.norm()
    graphs = counter.frame_count
    for module in modules:
        steps(module, precision)
    assert counter.frame_count == graphs <= 3, "one graph with gradient and one without serve every number of rows"


@pytest.mark.slow
def test_bf16_and_compile_are_one_word_each():
    config = compose_run(["compile=true", "trainer.precision=bf16-mixed", "objective=lcf"])
    assert resolve_precision(config.trainer.precision, config.trainer.accelerator) == "bf16-mixed"
    module = build_module(config, build_datamodule(config))
    assert all(block._compiled_call_impl is not None for block in module.backbone.blocks)
