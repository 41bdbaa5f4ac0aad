"""DiT and SiT in detail: the official keys, initialisation and arithmetic, written out a second time."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, create_backbone, list_backbones


def awake(name: str = "sit_s2", **options) -> Backbone:
    options = {"resolution": 8, "channels": 4, "depth": 2, "width": 24, "heads": 3, **options}
    network = create_backbone(name, **options)
    for parameter in network.parameters():
        if parameter.requires_grad:
            nn.init.normal_(parameter, std=0.3)
    return network


def official_keys(depth: int) -> set[str]:
    """The keys of SiT's checkpoints, as its models.py and the files on the web have them."""
    modules = ["x_embedder.proj", "t_embedder.mlp.0", "t_embedder.mlp.2"]
    modules += ["final_layer.linear", "final_layer.adaLN_modulation.1"]
    parts = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2", "adaLN_modulation.1")
    modules += [f"blocks.{block}.{part}" for block in range(depth) for part in parts]
    keys = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    return keys | {"pos_embed", "y_embedder.embedding_table.weight"}


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in list_backbones() if name.startswith(("sit", "dit"))])
def test_the_state_dict_has_the_keys_of_the_official_checkpoints(name: str):
    with torch.device("meta"):
        network = create_backbone(name, resolution=32, channels=4, num_classes=1000)
    assert set(network.state_dict()) == official_keys(network.depth)


@pytest.mark.parametrize(
    ("name", "depth", "width", "heads"),
    [
        ("dit_s2", 12, 384, 6),  # LCF Table 1
        ("dit_b2", 12, 768, 12),
        ("sit_s4", 12, 384, 6),  # SiT
        ("sit_b4", 12, 768, 12),
        ("sit_l4", 24, 1024, 16),
        ("sit_xl4", 28, 1152, 16),
        ("dit_nano4", 6, 128, 4),
        ("dit_tiny4", 12, 192, 3),
    ],
)
def test_the_sizes_are_those_of_the_papers(name: str, depth: int, width: int, heads: int):
    with torch.device("meta"):
        network = create_backbone(name, resolution=8, channels=1)
    assert (network.depth, network.width, network.patch) == (depth, width, int(name[-1]))
    assert {block.attn.num_heads for block in network.blocks} == {heads}
    assert {block.mlp.fc1.out_features for block in network.blocks} == {4 * width}


def test_the_tensors_have_the_shapes_of_the_official_xl_2_checkpoint():
    with torch.device("meta"):
        network = create_backbone("sit_xl2", resolution=32, channels=4, num_classes=1000, learn_sigma=True)
    shapes = {key: tuple(value.shape) for key, value in network.state_dict().items()}
    assert shapes["pos_embed"] == (1, 256, 1152)
    assert shapes["x_embedder.proj.weight"] == (1152, 4, 2, 2)
    assert shapes["t_embedder.mlp.0.weight"] == (1152, 256)
    assert shapes["y_embedder.embedding_table.weight"] == (1001, 1152)
    assert shapes["blocks.27.attn.qkv.weight"] == (3456, 1152)
    assert shapes["blocks.27.mlp.fc1.weight"] == (4608, 1152)
    assert shapes["blocks.27.adaLN_modulation.1.weight"] == (6912, 1152)
    assert shapes["final_layer.adaLN_modulation.1.weight"] == (2304, 1152)
    assert shapes["final_layer.linear.weight"] == (32, 1152)


def normalized(x: Tensor) -> Tensor:
    mean = x.mean(-1, keepdim=True)
    return (x - mean) / (x.var(-1, unbiased=False, keepdim=True) + 1e-6).sqrt()


def silu(x: Tensor) -> Tensor:
    return x / (1 + (-x).exp())


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


class WrittenOut:
    """SiT's forward pass for one sample in plain float64 arithmetic, from a state dict alone."""

    def __init__(self, network: Backbone, heads: int, patch: int, time_scale: float) -> None:
        self.weights = {key: value.double() for key, value in network.state_dict().items()}
        self.depth, self.heads, self.patch, self.time_scale = network.depth, heads, patch, time_scale
        self.modulated = "t_embedder.mlp.0.weight" in self.weights

    def linear(self, key: str, x: Tensor) -> Tensor:
        weight = self.weights[f"{key}.weight"]
        return x @ weight.reshape(len(weight), -1).T + self.weights[f"{key}.bias"]

    def patches(self, x: Tensor) -> Tensor:
        """Rows of patches from the top left, each flattened as (channel, row, column)."""
        p, side = self.patch, x.shape[-1] // self.patch
        cut = [x[:, i * p : i * p + p, j * p : j * p + p].reshape(-1) for i in range(side) for j in range(side)]
        return torch.stack(cut)

    def condition(self, t: float, label: int) -> Tensor:
        angles = [self.time_scale * t * 10000 ** (-k / 128) for k in range(128)]
        sinusoid = [math.cos(angle) for angle in angles] + [math.sin(angle) for angle in angles]
        hidden = silu(self.linear("t_embedder.mlp.0", torch.tensor(sinusoid, dtype=torch.float64)))
        return self.linear("t_embedder.mlp.2", hidden) + self.weights["y_embedder.embedding_table.weight"][label]

    def attention(self, block: str, x: Tensor) -> Tensor:
        query, key, value = self.linear(f"{block}.attn.qkv", x).chunk(3, dim=1)
        width = x.shape[1] // self.heads
        out = []
        for head in range(self.heads):
            columns = slice(head * width, (head + 1) * width)
            score = query[:, columns] @ key[:, columns].T / math.sqrt(width)
            out.append(score.softmax(dim=1) @ value[:, columns])
        return self.linear(f"{block}.attn.proj", torch.cat(out, dim=1))

    def modulation(self, part: str, c: Tensor | None, number: int, like: Tensor) -> list[Tensor]:
        if c is not None:
            return list(self.linear(f"{part}.adaLN_modulation.1", silu(c)).chunk(number))
        zero, one = torch.zeros_like(like[0]), torch.ones_like(like[0])
        return [zero, zero, one, zero, zero, one][:number]

    def block(self, block: str, x: Tensor, c: Tensor | None) -> Tensor:
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.modulation(block, c, 6, x)
        x = x + gate_a * self.attention(block, normalized(x) * (1 + scale_a) + shift_a)
        hidden = tanh_gelu(self.linear(f"{block}.mlp.fc1", normalized(x) * (1 + scale_m) + shift_m))
        return x + gate_m * self.linear(f"{block}.mlp.fc2", hidden)

    def __call__(self, x: Tensor, t: float, label: int) -> Tensor:
        channels, side = x.shape[0], x.shape[-1] // self.patch
        tokens = self.linear("x_embedder.proj", self.patches(x.double())) + self.weights["pos_embed"][0]
        c = self.condition(t, label) if self.modulated else None
        for number in range(self.depth):
            tokens = self.block(f"blocks.{number}", tokens, c)
        shift, scale = self.modulation("final_layer", c, 2, tokens)
        out = self.linear("final_layer.linear", normalized(tokens) * (1 + scale) + shift)
        image = torch.empty(channels, *x.shape[1:], dtype=torch.float64)
        for token in range(side * side):
            pixels = out[token].reshape(self.patch, self.patch, -1)[..., :channels]
            i, j = self.patch * (token // side), self.patch * (token % side)
            image[:, i : i + self.patch, j : j + self.patch] = pixels.permute(2, 0, 1)
        return image


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("sit_s2", {"num_classes": 5}),
        ("sit_s4", {"num_classes": 5, "learn_sigma": True}),
        ("dit_s2", {"num_classes": 5}),
        ("dit_nano4", {"conditioning": "none"}),
    ],
)
def test_the_network_is_its_published_arithmetic(name: str, options: dict):
    network = awake(name, **options).double()
    written = WrittenOut(network, heads=3, patch=int(name[-1]), time_scale=1000.0 if name[0] == "d" else 1.0)
    # times that float32 holds exactly: the sinusoid is float32, and 1000 t magnifies what t loses
    x, t, label = (
        torch.randn(3, 4, 8, 8, dtype=torch.float64),
        torch.tensor([0.125, 0.5, 0.75]),
        torch.tensor([0, 3, 5]),
    )
    velocity = network(x, t.double(), label)
    limit = 1e-3 if name[0] == "d" else 1e-5  # float32 angles of up to 750 are off by 1e-4, of up to 1 by 1e-7
    for row in range(3):
        expected = written(x[row], t[row].item(), label[row].item())
        torch.testing.assert_close(velocity[row], expected, rtol=0, atol=limit * expected.abs().max().item())


def test_a_checkpoint_with_sigma_is_the_network_without_it_once_its_rows_are_dropped():
    with_sigma, without = awake(num_classes=5, learn_sigma=True), awake(num_classes=5)
    weights = with_sigma.state_dict()
    for key in ("final_layer.linear.weight", "final_layer.linear.bias"):
        weights[key] = weights[key].unflatten(0, (2, 2, 8))[:, :, :4].flatten(0, 2)  # the channel runs fastest
    without.load_state_dict(weights)
    x, t, label = torch.randn(2, 4, 8, 8), torch.rand(2), torch.tensor([1, 5])
    torch.testing.assert_close(without(x, t, label), with_sigma(x, t, label))


def test_dit_counts_noise_levels_in_thousandths_and_sit_does_not():
    sit, dit = awake("sit_s2"), awake("dit_s2")
    dit.load_state_dict(sit.state_dict())
    x, t = torch.randn(2, 4, 8, 8), torch.tensor([0.25, 0.5])
    torch.testing.assert_close(dit(x, t / 1000), sit(x, t))
    assert (dit(x, t) - sit(x, t)).abs().max() > 0.1


def test_initialisation_is_sits():
    network = create_backbone("sit_s2", resolution=16, channels=4, num_classes=1000, depth=1)
    weights = dict(network.named_parameters())
    assert not any(p.any() for key, p in weights.items() if key.endswith("bias"))
    assert not any(p.any() for key, p in weights.items() if "adaLN" in key or key == "final_layer.linear.weight")
    for key in ("t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight", "y_embedder.embedding_table.weight"):
        assert weights[key].std().item() == pytest.approx(0.02, rel=0.02)
    for key in ("x_embedder.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc2.weight"):
        fan_out, fan_in = weights[key].flatten(1).shape
        bound = math.sqrt(6 / (fan_in + fan_out))  # Xavier, uniform
        assert 0.98 * bound < weights[key].abs().max() <= bound


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resolution": 9}, "resolution must be a multiple of the patch size 2, got 9"),
        ({"width": 30, "heads": 3}, "width must be a multiple of 4 and of the 3 heads, got 30"),
        ({"width": 32, "heads": 3}, "width must be a multiple of 4 and of the 3 heads, got 32"),
        ({"conditioning": "film"}, "conditioning must be one of adaln_zero, none, got 'film'"),
        ({"conditioning": "none", "num_classes": 10}, "conditioning='none' has no place for labels"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        create_backbone("sit_s2", **{"resolution": 8, "channels": 3, "depth": 1, **options})
