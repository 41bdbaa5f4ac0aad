"""Muon on the matrices of the blocks and AdamW on the rest, as two optimizers would be, and as one for checkpoints."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor

from flowexp.backbones import create_backbone
from flowexp.objectives import FlowMatching
from flowexp.training.muon import MuonWithAdamW, divided


def module(name: str = "dit_nano4") -> FlowMatching:
    return FlowMatching(create_backbone(name, resolution=8, channels=1, num_classes=3))


def with_gradients(one: FlowMatching, step: int) -> None:
    generator = torch.Generator().manual_seed(step)
    for parameter in one.parameters():
        parameter.grad = torch.randn(parameter.shape, generator=generator) if parameter.requires_grad else None


def trained(one: FlowMatching) -> list[tuple[str, torch.nn.Parameter]]:
    return [(name, value) for name, value in one.named_parameters() if value.requires_grad]


@pytest.mark.parametrize("name", ["dit_nano4", "unet_nano"])
def test_matrices_of_blocks_are_muons_and_nothing_else(name: str) -> None:
    one = module(name)
    names = {id(value): name for name, value in one.named_parameters()}
    matrices, others = ([names[id(value)] for value in part] for part in divided(trained(one)))
    assert matrices and all(name.startswith("backbone.blocks.") and name.endswith("weight") for name in matrices)
    assert not {name for name in matrices if "head" in name or "embed" in name}
    assert len(matrices) + len(others) == len(trained(one))


def test_a_step_is_that_of_the_two_optimizers() -> None:
    one = module()
    other = copy.deepcopy(one)
    both = MuonWithAdamW(trained(one), lr=1e-2, weight_decay=0.1)
    matrices, others = divided(trained(other))
    muon = torch.optim.Muon(matrices, lr=1e-2, weight_decay=0.1, adjust_lr_fn="match_rms_adamw")
    adamw = torch.optim.AdamW(others, lr=1e-2, weight_decay=0.1)
    for step in range(3):
        for each in (one, other):
            with_gradients(each, step)
        for optimizer in (both, muon, adamw):
            optimizer.step()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_its_state_goes_on_after_a_checkpoint() -> None:
    one = module()
    optimizer = MuonWithAdamW(trained(one), lr=1e-2)
    with_gradients(one, 0)
    optimizer.step()
    other = copy.deepcopy(one)
    resumed = MuonWithAdamW(trained(other), lr=1e-3)
    resumed.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for each, stepper in ((one, optimizer), (other, resumed)):
        with_gradients(each, 1)
        stepper.step()
    assert resumed.param_groups[1]["lr"] == 1e-2
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


def test_a_schedule_reaches_both_parts() -> None:
    one = module()
    before = {name: value.detach().clone() for name, value in trained(one)}
    optimizer = MuonWithAdamW(trained(one), lr=1.0)
    torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.0)
    with_gradients(one, 0)
    optimizer.step()
    assert all(torch.equal(value, before[name]) for name, value in trained(one))


def test_an_update_has_the_size_of_adamws() -> None:
    """Liu et al., section 2.2: an RMS of about 0.2 lr, whatever the shape of the matrix."""
    one = module()
    before = {id(value): value.detach().clone() for value in one.parameters()}
    optimizer = MuonWithAdamW(trained(one), lr=1.0, weight_decay=0.0)
    with_gradients(one, 0)
    optimizer.step()

    def rms(value: Tensor) -> float:
        return float((value.detach() - before[id(value)]).square().mean().sqrt())

    assert all(0.1 < rms(matrix) < 0.3 for matrix in divided(trained(one))[0])


def test_a_network_without_a_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"optimizer=muon needs matrices .* take adamw"):
        MuonWithAdamW([("backbone.blocks.0.bias", torch.nn.Parameter(torch.zeros(3)))])
