"""Blocks: both attention kernels are one function, modulation is what it says, compiling changes no key."""

from __future__ import annotations

import copy

import pytest
import timm.layers
import torch

from flowexp.backbones import blocks, create_backbone
from flowexp.backbones.blocks import AdaLNZeroBlock, Mlp, PlainBlock, SelfAttention, modulate, tanh_gelu


@pytest.fixture
def attention() -> SelfAttention:
    return SelfAttention(24, 3)


def test_attention_is_timms(attention: SelfAttention):
    timms = timm.layers.Attention(24, 3, qkv_bias=True)
    timms.load_state_dict(attention.state_dict())
    x = torch.randn(2, 5, 24)
    torch.testing.assert_close(attention(x), timms(x))


def test_the_mlp_is_timms():
    mlp, timms = Mlp(24, 96), timm.layers.Mlp(24, 96, act_layer=lambda: torch.nn.GELU("tanh"))
    timms.load_state_dict(mlp.state_dict())
    x = torch.randn(2, 5, 24)
    assert torch.equal(mlp(x), timms(x))


def test_gelu_as_it_is_compiled_is_the_published_one(monkeypatch: pytest.MonkeyPatch):
    x = torch.linspace(-6, 6, 401, dtype=torch.float64, requires_grad=True)
    published = torch.nn.functional.gelu(x, approximate="tanh")
    assert torch.equal(tanh_gelu(x), published)
    monkeypatch.setattr("torch.compiler.is_compiling", lambda: True)
    torch.testing.assert_close(tanh_gelu(x), published, rtol=1e-12, atol=1e-12)
    gradients = [torch.autograd.grad(out.sum(), x, retain_graph=True)[0] for out in (tanh_gelu(x), published)]
    torch.testing.assert_close(*gradients, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("by_matmul", [True, False])
def test_both_kernels_have_the_same_output_and_gradient(attention, by_matmul, monkeypatch):
    attention, x = attention.double(), torch.randn(2, 5, 24, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr(blocks, "_matmul_is_faster", lambda q: by_matmul)
    query, key, value = attention.qkv(x).reshape(2, 5, 3, 3, 8).permute(2, 0, 3, 1, 4)
    score = torch.einsum("bhid,bhjd->bhij", query, key) / 8**0.5
    mixed = torch.einsum("bhij,bhjd->bihd", score.softmax(dim=-1), value).reshape(2, 5, 24)
    expected = attention.proj(mixed)
    torch.testing.assert_close(attention(x), expected)
    gradients = [torch.autograd.grad(out.square().sum(), x)[0] for out in (attention(x), expected)]
    torch.testing.assert_close(*gradients)


def test_cpus_multiply_matrices_in_bf16_up_to_256_tokens():
    def q(num_tokens: int, dtype: torch.dtype, device: str = "cpu") -> torch.Tensor:
        return torch.empty(1, 2, num_tokens, 8, dtype=dtype, device=device)

    assert blocks._matmul_is_faster(q(256, torch.bfloat16))
    assert not blocks._matmul_is_faster(q(257, torch.bfloat16))
    assert not blocks._matmul_is_faster(q(256, torch.float32))
    assert not blocks._matmul_is_faster(q(256, torch.bfloat16, "meta"))


def test_modulation_is_per_sample():
    x, shift, scale = torch.randn(2, 5, 4), torch.randn(2, 4), torch.randn(2, 4)
    expected = torch.stack([x[i] * (1 + scale[i]) + shift[i] for i in range(2)])
    torch.testing.assert_close(modulate(x, shift, scale), expected)


def test_a_zero_modulation_is_the_identity_and_a_plain_block_takes_no_condition():
    tokens, condition = torch.randn(2, 5, 24), torch.randn(2, 24)
    block = AdaLNZeroBlock(24, 3, 4.0)
    torch.nn.init.zeros_(block.adaLN_modulation[1].weight)
    torch.nn.init.zeros_(block.adaLN_modulation[1].bias)
    assert torch.equal(block(tokens, condition), tokens)
    assert torch.equal(PlainBlock(24, 3, 4.0).eval()(tokens, None).isfinite(), torch.ones(2, 5, 24, dtype=torch.bool))


def test_norms_are_computed_in_float32_under_autocast():
    block, tokens = PlainBlock(24, 3, 4.0), 1000 + torch.randn(2, 5, 24)  # bf16 holds 1000 to the nearest 4
    exact = block.norm1(tokens)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(block.norm1(tokens).float(), exact)


@pytest.mark.slow
def test_compiling_the_blocks_compiles_once_for_all_and_changes_no_key():
    network = create_backbone("dit_nano4", resolution=8, channels=1, depth=4, width=32, heads=2)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    network.double()  # in which another batch size is no other result
    x, t = torch.randn(3, 1, 8, 8, dtype=torch.float64), torch.rand(3)
    keys, expected, graphs = list(network.state_dict()), network(x, t), []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    network.compile_blocks(backend=count)
    torch.testing.assert_close(network(x, t), expected)
    torch.testing.assert_close(network(x[:2], t[:2]), expected[:2])
    assert len(graphs) == 1, "one graph serves every block and every batch size"
    assert list(network.state_dict()) == keys
    copied = copy.deepcopy(network.state_dict())
    create_backbone("dit_nano4", resolution=8, channels=1, depth=4, width=32, heads=2).load_state_dict(copied)
