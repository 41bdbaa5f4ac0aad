"""Self-conditioning of a DiT: c + a(t) MLP(mean token) for what lies behind the tap, and for nothing else."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowexp.backbones import Backbone, create_backbone

TAP = 2


def network(**options) -> Backbone:
    small = {"resolution": 8, "channels": 3, "num_classes": 5, "depth": 4, "width": 32, "heads": 2}
    return create_backbone("dit_nano4", **{**small, "self_conditioning": TAP, **options})


def awake(**options) -> Backbone:
    made = network(**options)
    for parameter in made.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.2)
    return made


def batch() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(3, 3, 8, 8), torch.rand(3), torch.arange(3)


def test_the_condition_behind_the_tap_is_the_formula():
    net, (x, t, label) = awake().double(), batch()
    before, after = (net.encode(x.double(), t, label, tap=tap) for tap in (TAP, TAP + 1))
    parts = net.self_conditioner
    for row in range(3):
        time = net.t_embedder(t[row : row + 1])
        gain = parts.gain[1](torch.nn.functional.silu(time))
        mean = sum(before.tokens[row]) / before.tokens.shape[1]
        hidden = torch.nn.functional.silu(parts.mlp[0](mean))
        expected = time + net.y_embedder(label[row : row + 1]) + gain * parts.mlp[2](hidden)
        torch.testing.assert_close(after.condition[row : row + 1], expected)
    assert torch.equal(before.condition, net.t_embedder(t) + net.y_embedder(label)), "the tap itself sees it not yet"


def test_at_initialisation_the_condition_is_that_of_the_network_without():
    net = network()
    state = net.encode(*batch(), tap=4)
    assert net.self_conditioner.mlp[2].weight.any()
    x, t, label = batch()
    assert torch.equal(net.encode(x, t, label, tap=4).condition, net.encode(x, t, label, tap=1).condition)
    assert state.carried == ()


def test_with_a_gain_of_zero_it_is_the_network_without_at_any_weights():
    net, without = awake(), awake(self_conditioning=None)
    nn.init.zeros_(net.self_conditioner.gain[1].weight)
    nn.init.zeros_(net.self_conditioner.gain[1].bias)
    kept = {key: value for key, value in net.state_dict().items() if not key.startswith("self_conditioner")}
    without.load_state_dict(kept)
    x, t, label = batch()
    assert torch.equal(net(x, t, label), without(x, t, label))


def test_only_what_lies_behind_the_tap_changes():
    net = awake()
    x, t, label = batch()
    before = net.features(x, t, label, taps=(1, 2, 3))
    nn.init.normal_(net.self_conditioner.mlp[2].bias, std=3.0)
    after = net.features(x, t, label, taps=(1, 2, 3))
    assert [torch.equal(before[tap], after[tap]) for tap in (1, 2, 3)] == [True, True, False]


def test_rows_that_stop_at_the_tap_do_not_reach_the_conditioner():
    net, seen = awake(), []
    net.self_conditioner.register_forward_hook(lambda _, arguments, __: seen.append(len(arguments[0])))
    state = net.encode(*batch(), tap=TAP)
    assert seen == []
    net.decode(state.select(torch.tensor([2])))
    assert seen == [1]


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"self_conditioning": 0}, r"self_conditioning is a tap with blocks behind it, in 1\.\.3, got 0"),
        ({"self_conditioning": 4}, r"self_conditioning is a tap with blocks behind it, in 1\.\.3, got 4"),
        ({"conditioning": "none", "num_classes": None}, "conditioning='none' has no place for self_conditioning"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        network(**options)
