"""The U-Net in detail: its size, its plan of blocks, and one residual block written out a second time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import create_backbone
from flowexp.backbones.unet import Plan, UNetBlock

SMALL = {"width": 32, "multipliers": (1, 2), "num_res": 1, "attention_levels": (1,), "head_width": 32}


def on_meta(name: str, **options):
    with torch.device("meta"):
        return create_backbone(name, **options)


def test_the_large_one_has_76_million_parameters_within_a_hundredth():
    network = on_meta("unet_76m", resolution=32, channels=4, num_classes=1000)
    count = sum(p.numel() for p in network.parameters())
    assert count == 75_636_100
    assert count / 76e6 == pytest.approx(1, abs=0.01)


def test_the_small_one_has_1_to_2_million():
    network = on_meta("unet_nano", resolution=28, channels=1, num_classes=10)
    assert 1e6 < sum(p.numel() for p in network.parameters()) < 2e6


def by_hand(plan: tuple[int, int, bool], condition: int) -> int:
    """Parameters of a block from (channels in, channels out, attention): norms, convolutions, modulation, shortcut."""
    inputs, outputs, attention = plan
    norms = 2 * inputs + 2 * outputs
    convolutions = 9 * inputs * outputs + outputs + 9 * outputs * outputs + outputs
    modulation = 2 * outputs * condition + 2 * outputs
    shortcut = 0 if inputs == outputs else inputs * outputs + outputs
    attended = 2 * outputs + 4 * outputs * outputs + 4 * outputs if attention else 0
    return norms + convolutions + modulation + shortcut + attended


def test_the_plan_of_blocks_is_down_middle_up_with_a_skip_for_every_block_on_the_way_down():
    network = create_backbone("unet_nano", resolution=8, channels=3, num_classes=5, **SMALL)
    a, b = 32, 64
    down = [(a, a, False), (a, a, False), (a, b, True)]  # a block, the halving, a block
    up = [(b + b, b, True), (b + a, b, True), (b, b, False), (b + a, a, False), (a + a, a, False)]
    plans = [*down, (b, b, True), *up]
    assert [sum(p.numel() for p in block.parameters()) for block in network.blocks] == [
        by_hand(p, 4 * a) for p in plans
    ]
    assert (network.middle, network.default_tap, network.depth, network.width) == (4, 4, 9, b)
    assert [network.width_at(tap) for tap in range(1, 10)] == [a, a, b, b, b, b, b, a, a]


def test_maps_shrink_on_the_way_down_and_every_skip_is_used():
    network = create_backbone("unet_nano", resolution=28, channels=1)
    x, t = torch.randn(2, 1, 28, 28), torch.rand(2)
    states = [network.encode(x, t, tap=tap) for tap in range(1, network.depth + 1)]
    assert [state.hidden.shape[2] for state in states] == [28, 14, 14, 7, 7, 7, 7, 7, 14, 14, 14, 28, 28, 28]
    assert len(states[network.middle - 1].carried) == network.middle, "one per block on the way down, and the stem's"
    assert states[-1].carried == ()


@pytest.mark.parametrize(("resolution", "channels"), [(8, 1), (28, 1), (32, 3)])
def test_the_small_one_takes_digits_fashion_and_cifar(resolution: int, channels: int):
    network = create_backbone("unet_nano", resolution=resolution, channels=channels, num_classes=10)
    x = torch.randn(2, channels, resolution, resolution)
    assert network(x, torch.rand(2), torch.tensor([0, 9])).shape == x.shape


def normalized(x: Tensor, norm: nn.GroupNorm) -> Tensor:
    """GroupNorm of one map (C, H, W), group by group."""
    size = len(x) // norm.num_groups
    parts = []
    for group in x.split(size):
        parts.append((group - group.mean()) / (group.var(unbiased=False) + 1e-5).sqrt())
    return torch.cat(parts) * norm.weight[:, None, None] + norm.bias[:, None, None]


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def attended(block: UNetBlock, x: Tensor) -> Tensor:
    """Self-attention of one map, pixel by pixel."""
    channels, heads = len(x), block.attention.num_heads
    pixels = normalized(x, block.attention_norm).reshape(channels, -1).T
    query, key, value = (pixels @ block.attention.qkv.weight.T + block.attention.qkv.bias).split(channels, dim=1)
    out = []
    for head in range(heads):
        part = slice(head * channels // heads, (head + 1) * channels // heads)
        score = query[:, part] @ key[:, part].T / (channels // heads) ** 0.5
        out.append(score.softmax(dim=1) @ value[:, part])
    mixed = torch.cat(out, dim=1) @ block.attention.proj.weight.T + block.attention.proj.bias
    return mixed.T.reshape(x.shape)


def written_out(block: UNetBlock, x: Tensor, condition: Tensor) -> Tensor:
    """The block for one sample: x (C, H, W), the skip already beside it."""
    branch = block.conv1(silu(normalized(x, block.norm1))[None])[0]
    scale, shift = (block.modulation.weight @ silu(condition) + block.modulation.bias).chunk(2)
    branch = normalized(branch, block.norm2) * (1 + scale)[:, None, None] + shift[:, None, None]
    x = block.shortcut(x[None])[0] + block.conv2(silu(branch)[None])[0]
    return x + attended(block, x)


def awake(plan: Plan) -> UNetBlock:
    block = UNetBlock(plan, condition_width=6).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    return block


def test_a_block_is_its_arithmetic():
    block = awake(Plan(inputs=8, outputs=16, skip=8, heads=2))
    x, condition = torch.randn(3, 16, 4, 4, dtype=torch.float64), torch.randn(3, 6, dtype=torch.float64)
    found = block(x, condition)
    for row in range(3):
        torch.testing.assert_close(found[row], written_out(block, x[row], condition[row]))


def test_the_way_up_takes_the_skips_of_the_way_down_last_in_first_out():
    network = create_backbone("unet_nano", resolution=8, channels=3, **SMALL)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    x, t = torch.randn(2, 3, 8, 8), torch.rand(2)
    states = [network.embed(x, t, None)]
    for tap in range(1, network.depth + 1):
        states.append(network.advance(states[-1], tap))
    for tap, left in ((5, 3), (6, 2), (8, 1), (9, 0)):  # the four blocks that read what block `left` left
        beside = torch.cat([states[tap - 1].hidden, states[left].hidden], dim=1)
        assert torch.equal(network.blocks[tap - 1](beside, states[0].condition), states[tap].hidden)
    assert torch.equal(network.blocks[6](states[6].hidden, states[0].condition), states[7].hidden), "7 only doubles"


@pytest.mark.slow
def test_every_block_is_compiled_however_many_plans_there_are():
    network, graphs = create_backbone("unet_nano", resolution=8, channels=1), []
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.1)
    network.double()  # in which another batch size is no other result
    x, t = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.rand(3)
    expected = network(x, t)

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    network.compile_blocks(backend=count)
    torch.testing.assert_close(network(x, t), expected)
    kinds = {replace(plan, keeps=False) for plan in network.plans}
    assert len(graphs) == len(kinds) > 8, "PyTorch by itself compiles 8 and runs the rest as it is"
    torch.testing.assert_close(network(x[:2], t[:2]), expected[:2])
    assert len(graphs) == len(kinds), "a graph serves every batch size"


@pytest.mark.parametrize(("resample", "side"), [("down", 2), ("up", 8)])
def test_resampling_averages_squares_or_repeats_pixels_on_the_shortcut(resample: str, side: int):
    block = awake(Plan(inputs=8, outputs=8, resample=resample))
    nn.init.zeros_(block.conv2.weight)
    nn.init.zeros_(block.conv2.bias)
    x = torch.randn(2, 8, 4, 4, dtype=torch.float64)
    found = block(x, torch.randn(2, 6, dtype=torch.float64))
    assert found.shape == (2, 8, side, side)
    small, large = (found, x) if resample == "down" else (x, found)
    for row in range(small.shape[2]):
        for column in range(small.shape[3]):
            square = large[:, :, 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            torch.testing.assert_close(small[:, :, row, column], square.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resolution": 30}, "resolution must be a multiple of 4 for 3 levels, got 30"),
        ({"width": 48}, "width must be a multiple of 32 and of head_width=32, got 48"),
        ({"conditioning": "film"}, "conditioning must be one of adaln_zero, none, got 'film'"),
        ({"conditioning": "none", "num_classes": 10}, "conditioning='none' has no place for labels"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        create_backbone("unet_nano", **{"resolution": 8, "channels": 3, **options})


def test_the_noise_level_is_read_as_one_of_a_thousand_steps():
    """ADM's sinusoid: its fastest wave is cos(1000 t) and sin(1000 t), that of DiT too."""
    network = create_backbone("unet_nano", resolution=8, channels=1, **SMALL)
    seen = []
    network.t_embedder.mlp.register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    t = torch.tensor([0.0, 0.25, 0.0017])
    network(torch.zeros(3, 1, 8, 8), t)
    half = seen[0].shape[1] // 2
    torch.testing.assert_close(seen[0][:, 0], (1000 * t).cos(), atol=1e-4, rtol=0)
    torch.testing.assert_close(seen[0][:, half], (1000 * t).sin(), atol=1e-4, rtol=0)
    slowest = 1000 * t * 10000 ** -((half - 1) / half)
    torch.testing.assert_close(seen[0][:, -1], slowest.sin(), atol=1e-4, rtol=0)
