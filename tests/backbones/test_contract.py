"""What every registered backbone promises, whatever its family: the registry is walked, sizes are shrunk."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, create_backbone, list_backbones

TRANSFORMER = {"depth": 4, "width": 32, "heads": 2}
TINY = {  # by family: what shrinks it
    "dit": TRANSFORMER,
    "sit": TRANSFORMER,
    "unet": {"width": 32, "multipliers": (1, 2), "num_res": 1, "attention_levels": (1,), "head_width": 32},
    "mmdit": {**TRANSFORMER, "text_dim": 6, "text_length": 5},
}
CLASSES = {"num_classes": 5}
PLAIN = {"conditioning": "none"}
DIT_VARIANTS = {
    "unconditional": {},
    "classes": CLASSES,
    "plain": PLAIN,
    "sigma": {**CLASSES, "learn_sigma": True},
    "self_conditioned": {**CLASSES, "self_conditioning": 2},
}
VARIANTS: dict[str, dict[str, dict]] = {
    "dit": DIT_VARIANTS,
    "sit": DIT_VARIANTS,
    "unet": {"unconditional": {}, "classes": CLASSES, "plain": PLAIN},
    "mmdit": {"text": {}},
}


def family(name: str) -> str:
    return name.split("_")[0]


def names(variant: str) -> list[str]:
    """The architectures whose family has the variant."""
    return [name for name in ARCHITECTURES if variant in VARIANTS[family(name)]]


# Other names are sizes of these, and shrunk they would be the same network.
ARCHITECTURES = [
    "dit_nano2",
    "dit_nano4",
    "sit_s2",
    "sit_s4",
    "unet_nano",
    "unet_76m",
    "mmdit_nano",
    "mmdit_nano4",
    "mmdit_repa",
]
QUICK = {"dit_nano2", "unet_nano", "mmdit_nano"}  # one of each family, for `make check`


def unless_quick(name: str) -> list[pytest.MarkDecorator]:
    return [] if name in QUICK else [pytest.mark.slow]


def all_variants() -> list:
    """All variants of each architecture."""
    return [
        pytest.param(name, options, id=f"{name}-{variant}", marks=unless_quick(name))
        for name in ARCHITECTURES
        for variant, options in VARIANTS[family(name)].items()
    ]


every_backbone = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=unless_quick(name)) for name in ARCHITECTURES]
)
every_variant = pytest.mark.parametrize(("name", "variant"), all_variants())


def small(name: str, **options) -> Backbone:
    return create_backbone(name, **{"resolution": 8, "channels": 3, **TINY[family(name)], **options})


def awake(name: str, **options) -> Backbone:
    """A small network in which every parameter matters: at initialisation most are multiplied by zero."""
    network = small(name, **options)
    for parameter in network.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    if network.takes == "text":
        network.set_null_text(torch.randn(5, 6))
    return network


def labelled(name: str, **options) -> Backbone:
    """The same, of the variant that takes labels."""
    return awake(name, **({} if family(name) == "mmdit" else CLASSES), **options)


def batch(network: Backbone, num: int = 3) -> tuple[Tensor, Tensor, Tensor]:
    """x, t, label."""
    label = torch.randn(num, 5, 6) if network.takes == "text" else torch.arange(num) % 5
    return torch.randn(num, 3, 8, 8), torch.rand(num), label


def batch_of(seed: int, network: Backbone) -> tuple[Tensor, Tensor, Tensor]:
    """The same batch at every call."""
    torch.manual_seed(seed)
    return batch(network)


def counted_calls(network: Backbone) -> list[int]:
    """A list to which every block adds its number, from 1, when it runs."""
    calls: list[int] = []
    for number, block in enumerate(network.blocks, start=1):
        block.register_forward_hook(lambda *_, number=number: calls.append(number))
    return calls


def test_every_name_is_a_size_of_an_architecture_that_is_tried_here():
    tried = {architecture(name) for name in ARCHITECTURES}
    assert {name for name in list_backbones() if architecture(name) not in tried} == set()


def architecture(name: str) -> tuple[type, str]:
    """The class of a network, and all of it that is not its size."""
    network = small(name)
    return type(network), str(network)


@every_variant
def test_the_velocity_has_the_shape_of_the_input_and_is_zero_at_initialisation(name: str, variant: dict):
    network = small(name, **variant)
    velocity = network(*batch(network))
    assert velocity.shape == (3, 3, 8, 8)
    assert velocity.dtype == torch.float32
    if family(name) == "mmdit":
        assert velocity.std() > 0.1, "REPA's MMDiT has no layer of zeros"
    else:
        assert (velocity == 0).all()


@every_variant
def test_a_gradient_reaches_every_parameter_that_is_trained(name: str, variant: dict):
    network = awake(name, **variant)
    network(*batch(network)).square().sum().backward()
    silent = [key for key, p in network.named_parameters() if p.requires_grad and (p.grad is None or not p.grad.any())]
    assert not silent


@every_variant
def test_cutting_a_pass_at_any_block_changes_no_bit(name: str, variant: dict):
    network = awake(name, **variant)
    taps = range(1, network.depth + 1)
    velocity, features = network(*batch_of(1, network)), network.features(*batch_of(1, network), taps=taps)
    for tap in taps:
        state = network.encode(*batch_of(1, network), tap=tap)
        assert state.block == tap
        assert torch.equal(state.tokens, features[tap])
        assert state.tokens.shape[2] == network.width_at(tap)
        assert torch.equal(network.decode(state), velocity)
    assert torch.equal(network.encode(*batch_of(1, network)).tokens, features[network.depth])


@every_variant
def test_a_pass_that_is_paused_after_every_block_changes_no_bit(name: str, variant: dict):
    network = awake(name, **variant)
    state = network.encode(*batch_of(1, network), tap=1)
    for tap in range(2, network.depth + 1):
        state = network.advance(state, tap)
    assert torch.equal(network.decode(state), network(*batch_of(1, network)))


@every_backbone
def test_blocks_after_the_deepest_tap_do_not_run_and_those_before_run_once(name: str):
    network = awake(name)
    calls = counted_calls(network)
    network.features(*batch(network), taps=(3, 1))
    assert calls == [1, 2, 3]
    state = network.encode(*batch(network), tap=2)
    assert calls == [1, 2, 3, 1, 2]
    network.decode(state)
    assert calls == [1, 2, 3, *range(1, network.depth + 1)]


@every_variant
def test_the_rows_selected_at_a_tap_get_the_velocity_of_a_whole_pass(name: str, variant: dict):
    network = awake(name, **variant).double()
    x, t, label = batch_of(1, network)
    x, t = x.double(), t.double()
    velocity = network(x, t, label)
    for tap in range(1, network.depth + 1):
        state = network.encode(x, t, label, tap=tap)
        for rows in (torch.tensor([False, True, True]), torch.tensor([2, 0])):
            torch.testing.assert_close(network.decode(state.select(rows)), velocity[rows])


@every_backbone
def test_rows_that_stop_at_the_tap_get_no_gradient_from_the_later_blocks(name: str):
    network = awake(name)
    x, t, label = batch(network)
    x.requires_grad_()
    network.decode(network.encode(x, t, label, tap=2).select(torch.tensor([0]))).sum().backward()
    assert x.grad[0].any()
    assert not x.grad[1:].any()


@every_backbone
def test_a_batch_without_rows_passes_through(name: str):
    network = labelled(name)
    state = network.encode(*batch(network), tap=2).select(torch.zeros(3, dtype=torch.bool))
    assert network.decode(state).shape == (0, 3, 8, 8)


@every_backbone
def test_taps_outside_the_network_are_refused(name: str):
    network = small(name)
    beyond = network.depth + 1
    for taps in ((0,), (beyond,), (-1, 2), ()):
        with pytest.raises(ValueError, match=rf"taps must lie in 1\.\.{network.depth}, got"):
            network.features(*batch(network), taps=taps)
    with pytest.raises(ValueError, match=rf"taps must lie in 1\.\.{network.depth}, got \[{beyond}\]"):
        network.encode(*batch(network), tap=beyond)
    with pytest.raises(ValueError, match=rf"taps must lie in 1\.\.{network.depth}, got \[0\]"):
        network.width_at(0)


@pytest.mark.parametrize("name", [name for name in ARCHITECTURES if family(name) != "unet"])
def test_the_default_tap_of_a_transformer_is_block_8_of_12(name: str):
    assert small(name, depth=12).default_tap == 8
    assert small(name, depth=1).default_tap == 1


@every_backbone
def test_the_default_tap_has_the_width_of_the_network(name: str):
    network = small(name)
    assert network.width_at(network.default_tap) == network.width


@every_backbone
def test_no_label_is_the_null_condition(name: str):
    network = labelled(name)
    x, t, label = batch(network)
    null = network.null_condition(label)
    assert null.shape == label.shape
    assert null.dtype == label.dtype
    without = network(x, t)
    assert torch.equal(without, network(x, t, null))
    assert not torch.equal(without, network(x, t, label))
    assert network.null_condition(None) is None


@every_backbone
def test_dropping_every_label_leaves_the_null_condition(name: str):
    network = labelled(name, label_dropout=1.0)
    *_, label = batch(network)
    generator = torch.Generator().manual_seed(0)
    assert torch.equal(network.drop_labels(label, generator), network.null_condition(label))


@pytest.mark.parametrize("name", names("classes"))
def test_the_null_condition_of_classes_is_the_null_label(name: str):
    network = small(name, **CLASSES)
    assert (network.takes, network.null_label) == ("class", 5)
    assert network.null_condition(torch.tensor([0, 3])).tolist() == [5, 5]


@pytest.mark.parametrize("name", names("unconditional"))
def test_an_unconditional_network_has_no_null_condition_and_ignores_labels(name: str):
    network = awake(name)
    x, t, label = batch(network)
    assert (network.takes, network.null_label, network.null_condition(label)) == ("nothing", None, None)
    assert torch.equal(network(x, t), network(x, t, label))


@every_backbone
def test_the_noise_level_matters(name: str):
    network = awake(name)
    x, t, _ = batch(network)
    assert not torch.equal(network(x, t), network(x, t / 2))


@pytest.mark.parametrize("name", names("plain"))
def test_the_noise_level_does_not_matter_where_conditioning_is_none(name: str):
    network = awake(name, **PLAIN)
    x, t, _ = batch(network)
    assert torch.equal(network(x, t), network(x, t / 2))


@every_backbone
def test_train_and_eval_mode_are_one(name: str):
    """Nothing is random inside the network: what training hides, drop_labels hides before the call."""
    network = labelled(name, label_dropout=0.9)
    assert torch.equal(network.train()(*batch_of(1, network)), network.eval()(*batch_of(1, network)))


@every_variant
def test_autocast_keeps_tokens_and_velocity_in_float32(name: str, variant: dict):
    network = awake(name, **variant)
    exact = network(*batch_of(1, network))
    with torch.autocast("cpu", torch.bfloat16):
        state = network.encode(*batch_of(1, network), tap=2)
        velocity = network.decode(state)
    assert state.tokens.dtype == velocity.dtype == torch.float32
    assert (velocity - exact).norm() < 0.03 * exact.norm()


@every_backbone
def test_a_network_built_on_the_meta_device_is_brought_to_life_by_initialize(name: str):
    options = {} if family(name) == "mmdit" else CLASSES
    with torch.device("meta"):
        network = small(name, **options)
    network.to_empty(device="cpu")
    torch.manual_seed(0)
    network.initialize()
    alive = small(name, **options)
    torch.manual_seed(0)
    alive.initialize()
    weights, expected = network.state_dict(), alive.state_dict()
    assert weights.keys() == expected.keys()
    assert all(torch.equal(weights[key], expected[key]) for key in expected)
    assert torch.equal(network(*batch_of(1, network)), alive(*batch_of(1, alive)))
