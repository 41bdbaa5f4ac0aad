"""What every registered backbone promises, whatever its family: the registry is walked, sizes are shrunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, create_backbone, list_backbones

SMALL = {"resolution": 8, "channels": 3, "depth": 4, "width": 32, "heads": 2}
VARIANTS = [
    pytest.param({}, id="unconditional"),
    pytest.param({"num_classes": 5}, id="classes"),
    pytest.param({"conditioning": "none"}, id="plain"),
    pytest.param({"num_classes": 5, "learn_sigma": True}, id="sigma"),
]

every_backbone = pytest.mark.parametrize("name", list_backbones())
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def awake(name: str, **options) -> Backbone:
    """A small network in which every parameter matters: at initialisation most are multiplied by zero."""
    network = create_backbone(name, **{**SMALL, **options})
    for parameter in network.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return network


def batch(num: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """x, t, label."""
    return torch.randn(num, 3, 8, 8), torch.rand(num), torch.arange(num) % 5


def batch_of(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """The same batch at every call."""
    torch.manual_seed(seed)
    return batch()


def counted_calls(network: Backbone) -> list[int]:
    """A list to which every block adds its number, from 1, when it runs."""
    calls: list[int] = []
    for number, block in enumerate(network.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    return calls


@every_backbone
@every_variant
def test_the_velocity_has_the_shape_of_the_input_and_is_zero_at_initialisation(name: str, variant: dict):
    network = create_backbone(name, **{**SMALL, **variant})
    velocity = network(*batch())
    assert velocity.shape == (3, 3, 8, 8)
    assert velocity.dtype == torch.float32
    assert (velocity == 0).all()


@every_backbone
@every_variant
def test_a_gradient_reaches_every_parameter_that_is_trained(name: str, variant: dict):
    network = awake(name, **variant)
    x, t, label = batch()
    network(x, t, label).square().sum().backward()
    silent = [key for key, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent


@every_backbone
@every_variant
def test_cutting_a_pass_at_any_block_changes_no_bit(name: str, variant: dict):
    network = awake(name, **variant)
    velocity, features = network(*batch_of(1)), network.features(*batch_of(1), taps=(1, 2, 3, 4))
    for tap in (1, 2, 3, 4):
        state = network.encode(*batch_of(1), tap=tap)
        assert state.block == tap
        assert torch.equal(state.tokens, features[tap])
        assert torch.equal(network.decode(state), velocity)
    assert torch.equal(network.encode(*batch_of(1)).tokens, features[4])


@every_backbone
def test_blocks_after_the_deepest_tap_do_not_run_and_those_before_run_once(name: str):
    network = awake(name)
    calls = counted_calls(network)
    network.features(*batch(), taps=(3, 1))
    assert calls == [1, 2, 3]
    state = network.encode(*batch(), tap=2)
    assert calls == [1, 2, 3, 1, 2]
    network.decode(state)
    assert calls == [1, 2, 3, 1, 2, 3, 4]


@every_backbone
@every_variant
def test_the_rows_selected_at_a_tap_get_the_velocity_of_a_whole_pass(name: str, variant: dict):
    network = awake(name, **variant)
    velocity, state = network(*batch_of(1)), network.encode(*batch_of(1), tap=2)
    for rows in (torch.tensor([False, True, True]), torch.tensor([2, 0])):
        torch.testing.assert_close(network.decode(state.select(rows)), velocity[rows])


@every_backbone
def test_rows_that_stop_at_the_tap_get_no_gradient_from_the_later_blocks(name: str):
    network = awake(name)
    x, t, label = batch()
    x.requires_grad_()
    network.decode(network.encode(x, t, label, tap=2).select(torch.tensor([0]))).sum().backward()
    assert x.grad[0].any()
    assert not x.grad[1:].any()


@every_backbone
def test_a_batch_without_rows_passes_through(name: str):
    network = awake(name, num_classes=5)
    state = network.encode(*batch(), tap=2).select(torch.zeros(3, dtype=torch.bool))
    assert network.decode(state).shape == (0, 3, 8, 8)


@every_backbone
def test_taps_outside_the_network_are_refused(name: str):
    network = create_backbone(name, **SMALL)
    for taps in ((0,), (5,), (-1, 2), ()):
        with pytest.raises(ValueError, match=r"taps must lie in 1\.\.4, got"):
            network.features(*batch(), taps=taps)
    with pytest.raises(ValueError, match=r"taps must lie in 1\.\.4, got \[13\]"):
        network.encode(*batch(), tap=13)


@every_backbone
def test_the_default_tap_is_block_8_of_12(name: str):
    assert create_backbone(name, **{**SMALL, "depth": 12}).default_tap == 8
    assert create_backbone(name, **{**SMALL, "depth": 1}).default_tap == 1


@every_backbone
def test_no_label_is_the_null_label(name: str):
    network = awake(name, num_classes=5)
    x, t, label = batch()
    assert network.null_label == 5
    without = network(x, t)
    assert torch.equal(without, network(x, t, torch.full_like(label, 5)))
    assert not torch.equal(without, network(x, t, label))


@every_backbone
def test_an_unconditional_network_has_no_null_label_and_ignores_labels(name: str):
    network = awake(name)
    x, t, label = batch()
    assert network.null_label is None
    assert torch.equal(network(x, t), network(x, t, label))


@every_backbone
def test_the_noise_level_matters_unless_conditioning_is_none(name: str):
    x, t, _ = batch()
    conditioned, plain = awake(name), awake(name, conditioning="none")
    assert not torch.equal(conditioned(x, t), conditioned(x, t / 2))
    assert torch.equal(plain(x, t), plain(x, t / 2))


@every_backbone
def test_train_and_eval_mode_are_one(name: str):
    """Nothing is random inside the network: what training hides, drop_labels hides before the call."""
    network = awake(name, num_classes=5, label_dropout=0.9)
    assert torch.equal(network.train()(*batch_of(1)), network.eval()(*batch_of(1)))


@every_backbone
@every_variant
def test_autocast_keeps_tokens_and_velocity_in_float32(name: str, variant: dict):
    network = awake(name, **variant)
    exact = network(*batch_of(1))
    with torch.autocast("cpu", torch.bfloat16):
        state = network.encode(*batch_of(1), tap=2)
        velocity = network.decode(state)
    assert state.tokens.dtype == velocity.dtype == torch.float32
    assert (velocity - exact).norm() < 0.03 * exact.norm()


@every_backbone
def test_a_network_built_on_the_meta_device_is_brought_to_life_by_initialize(name: str):
    options = {**SMALL, "num_classes": 5}
    with torch.device("meta"):
        network = create_backbone(name, **options)
    network.to_empty(device="cpu")
    torch.manual_seed(0)
    network.initialize()
    alive = create_backbone(name, **options)
    torch.manual_seed(0)
    alive.initialize()
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), alive.parameters(), strict=True))
    assert not network(*batch()).any()
