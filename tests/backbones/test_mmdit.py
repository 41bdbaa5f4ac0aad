"""MMDiT in detail: its size counted by hand, the joint block written out with loops, the empty caption."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone, create_backbone
from flowexp.backbones.mmdit import JointBlock, Stream

SMALL = {"resolution": 8, "channels": 3, "depth": 2, "width": 16, "heads": 2, "text_dim": 6, "text_length": 5}


def awake(**options) -> Backbone:
    network = create_backbone("mmdit_nano", **{**SMALL, **options})
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.3)
    return network


def test_repas_size_has_the_parameters_counted_by_hand():
    d, depth, text, patch = 768, 24, 768, 2 * 2 * 4
    stream = 3 * d * d + 3 * d + d * d + d + 8 * d * d + 5 * d + 6 * d * d + 6 * d  # qkv, proj, MLP, modulation
    last_text = 3 * d * d + 3 * d + 2 * d * d + 2 * d  # qkv and the modulation before it
    embedders = (patch * d + d) + (256 * d + d + d * d + d) + (text * d + d)
    head = 2 * d * d + 2 * d + patch * d + patch
    expected = (2 * depth - 1) * stream + last_text + embedders + head
    with torch.device("meta"):
        network = create_backbone("mmdit_repa", resolution=32, channels=4)
    assert sum(p.numel() for p in network.parameters()) == expected == 505_070_608
    assert (network.depth, network.width, network.patch, network.blocks[0].image.heads) == (24, 768, 2, 24)
    assert network.pos_embed.shape == (1, 256, 768)
    assert network.null_text.shape == (77, 768)


def normalized(x: Tensor) -> Tensor:
    return (x - x.mean()) / (x.var(unbiased=False) + 1e-6).sqrt()


def tanh_gelu(x: Tensor) -> Tensor:
    return 0.5 * x * (1 + (math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)).tanh())


def parts(stream: Stream, condition: Tensor, number: int) -> list[Tensor]:
    linear = stream.adaLN_modulation[1]
    return list((linear.weight @ (condition / (1 + (-condition).exp())) + linear.bias).chunk(number))


def finished(stream: Stream, token: Tensor, attended: Tensor, modulation: list[Tensor]) -> Tensor:
    _, _, gate, shift, scale, gate_mlp = modulation
    token = token + gate * (stream.proj.weight @ attended + stream.proj.bias)
    hidden = tanh_gelu(stream.mlp.fc1(normalized(token) * (1 + scale) + shift))
    return token + gate_mlp * stream.mlp.fc2(hidden)


def written_out(block: JointBlock, image: Tensor, text: Tensor, condition: Tensor) -> tuple[Tensor, Tensor | None]:
    """The joint block for one sample, token by token: image (N, D), text (L, D)."""
    tokens = [(block.text, token) for token in text] + [(block.image, token) for token in image]
    modulations = {block.text: parts(block.text, condition, 2 if block.last else 6)}
    modulations[block.image] = parts(block.image, condition, 6)
    projected = []
    for stream, token in tokens:
        shift, scale = modulations[stream][:2]
        projected.append((stream.qkv.weight @ (normalized(token) * (1 + scale) + shift) + stream.qkv.bias).chunk(3))
    done: list[Tensor] = []
    for place, (stream, token) in enumerate(tokens):
        if stream is block.text and block.last:
            continue
        heads = []
        for head in range(stream.heads):
            d = len(token) // stream.heads
            own = slice(head * d, (head + 1) * d)
            scores = torch.stack([projected[place][0][own] @ key[own] / math.sqrt(d) for _, key, _ in projected])
            weights = scores.exp() / scores.exp().sum()
            heads.append(sum(w * value[own] for w, (_, _, value) in zip(weights, projected, strict=True)))
        done.append(finished(stream, token, torch.cat(heads), modulations[stream]))
    if block.last:
        return torch.stack(done), None
    return torch.stack(done[len(text) :]), torch.stack(done[: len(text)])


@pytest.mark.parametrize("last", [False, True])
def test_image_and_text_attend_to_all_tokens_of_both(last: bool):
    block = JointBlock(8, 2, 4.0, last=last).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter, std=0.3)
    image, text, condition = (torch.randn(2, *s, dtype=torch.float64) for s in ((4, 8), (3, 8), (8,)))
    found_image, found_text = block(image, text, condition)
    for row in range(2):
        expected_image, expected_text = written_out(block, image[row], text[row], condition[row])
        torch.testing.assert_close(found_image[row], expected_image)
        assert (found_text is None) == (expected_text is None) == last
        if not last:
            torch.testing.assert_close(found_text[row], expected_text)


def test_every_token_of_the_caption_matters_to_the_velocity():
    network = awake()
    x, t, caption = torch.randn(1, 3, 8, 8), torch.rand(1), torch.randn(1, 5, 6, requires_grad=True)
    network(x, t, caption).square().sum().backward()
    assert caption.grad.abs().sum(dim=2).min() > 0


def test_the_state_holds_the_images_tokens_and_carries_the_texts_up_to_the_last_block():
    network = awake()
    x, t, caption = torch.randn(2, 3, 8, 8), torch.rand(2), torch.randn(2, 5, 6)
    first, last = network.encode(x, t, caption, tap=1), network.encode(x, t, caption)
    assert first.tokens.shape == last.tokens.shape == (2, 16, 16)
    assert [part.shape for part in first.carried] == [(2, 5, 16)]
    assert last.carried == ()


def test_the_empty_caption_is_zeros_until_set_and_travels_with_the_weights():
    network, other = awake().double(), awake().double()
    x, t, empty = torch.randn(2, 3, 8, 8).double(), torch.rand(2), torch.randn(5, 6).double()
    torch.testing.assert_close(network(x, t), network(x, t, torch.zeros(2, 5, 6).double()))
    network.set_null_text(empty)
    torch.testing.assert_close(network(x, t), network(x, t, empty.repeat(2, 1, 1)))
    assert torch.equal(network.null_condition(torch.zeros(3, 5, 6)), empty.expand(3, -1, -1))
    other.load_state_dict(network.state_dict())
    assert torch.equal(other.null_text, empty)


def test_embeddings_may_be_stored_in_half_precision():
    network = awake()
    x, t, caption = torch.randn(2, 3, 8, 8), torch.rand(2), torch.randn(2, 5, 6).half()
    assert torch.equal(network(x, t, caption), network(x, t, caption.float()))


def test_initialisation_is_pytorchs_and_nothing_is_zero():
    network = create_backbone("mmdit_nano", **{**SMALL, "width": 64})
    assert all(parameter.any() for parameter in network.parameters())
    for block in network.blocks:
        weight = block.image.adaLN_modulation[1].weight
        assert weight.abs().max().item() == pytest.approx(1 / math.sqrt(64), rel=0.01)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"resolution": 9}, "resolution must be a multiple of the patch size 2, got 9"),
        ({"width": 30}, "width must be a multiple of 4 and of the 2 heads, got 30"),
        ({"conditioning": "none"}, "pass conditioning='adaln_zero', got 'none'"),
        ({"num_classes": 10}, "takes text, not classes: pass num_classes=None, got 10"),
    ],
)
def test_what_cannot_be_built_is_refused_in_a_sentence(options: dict, sentence: str):
    with pytest.raises(ValueError, match=sentence):
        create_backbone("mmdit_nano", **{**SMALL, **options})


@pytest.mark.parametrize("label", [torch.zeros(2, 4, 6), torch.zeros(2, dtype=torch.int64)])
def test_a_label_that_is_no_caption_of_its_size_is_refused(label: Tensor):
    network = awake()
    with pytest.raises(ValueError, match=r"must be \(text_length, text_dim\) = \(5, 6\), got \("):
        network(torch.randn(2, 3, 8, 8), torch.rand(2), label)
    with pytest.raises(ValueError, match=r"must be \(text_length, text_dim\) = \(5, 6\), got \(2,"):
        network.set_null_text(label)
