"""DiT's and SiT's weights under the names of diffusers' transformer of that architecture, and back.

diffusers gives each block a copy of the embedders, splits the attention's one map into three, and computes the
positions. Nothing is rounded: what goes there and comes back is the same, bit for bit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.backbones.blocks import PlainBlock
from flowexp.backbones.dit import DiT
from flowexp.backbones.embedders import sincos_2d
from flowexp.flow.interpolants import Interpolant
from flowexp.flow.parameterization import Parameterization

MLP_RATIO = 4.0  # of diffusers' blocks
_EMBEDDER = {"t_embedder.mlp.0": "timestep_embedder.linear_1", "t_embedder.mlp.2": "timestep_embedder.linear_2"}
_CLASSES = "class_embedder.embedding_table.weight"
_BLOCK = {
    "adaLN_modulation.1": "norm1.linear",
    "attn.proj": "attn1.to_out.0",
    "mlp.fc1": "ff.net.0.proj",
    "mlp.fc2": "ff.net.2",
}
_OUTSIDE = {
    "x_embedder.proj": "pos_embed.proj",
    "final_layer.adaLN_modulation.1": "proj_out_1",
    "final_layer.linear": "proj_out_2",
}
_KINDS = ("weight", "bias")
_QKV = ("attn1.to_q", "attn1.to_k", "attn1.to_v")


def check_exportable(backbone: Backbone, interpolant: Interpolant, parameterization: Parameterization) -> DiT:
    """`backbone` where diffusers' transformer and its flow-matching schedulers can be the same.

    Raises:
        ValueError: they cannot; the sentence says by what.
    """
    what = _in_the_way(backbone, interpolant, parameterization)
    if what:
        raise ValueError(f"format=diffusers holds DiT and SiT, and this run has {what}: export it with format=flowexp")
    assert isinstance(backbone, DiT)
    return backbone


def _in_the_way(backbone: Backbone, interpolant: Interpolant, parameterization: Parameterization) -> str:
    if not isinstance(backbone, DiT):
        return f"{backbone.name}, another architecture"
    if backbone.t_embedder is None or backbone.self_conditioner is not None:
        return "blocks without t and label" if backbone.t_embedder is None else "self-conditioning"
    if len(backbone.state_dict()["blocks.0.mlp.fc1.weight"]) != MLP_RATIO * backbone.width:
        return f"MLPs that are not {MLP_RATIO:g} times as wide"
    if not torch.allclose(backbone.pos_embed.cpu(), _positions(backbone), atol=1e-5):
        return "positions that are not the sinusoids of its grid"
    if interpolant.name != "linear":
        return f"the path {interpolant.name}, where diffusers' schedulers take the linear one"
    return "" if parameterization.prediction == "velocity" else f"a prediction of {parameterization.prediction}"


def _positions(backbone: DiT) -> Tensor:
    return sincos_2d(backbone.resolution // backbone.patch, backbone.width)


def transformer_config(backbone: DiT) -> dict[str, Any]:
    """The keys of diffusers' DiTTransformer2DModel for this network, and the factor on its t."""
    assert backbone.t_embedder is not None
    block = backbone.blocks[0]
    assert isinstance(block, PlainBlock)
    heads = int(block.attn.num_heads)
    return {
        "num_attention_heads": heads,
        "attention_head_dim": backbone.width // heads,
        "in_channels": backbone.channels,
        "out_channels": backbone.channels,
        "num_layers": backbone.depth,
        "sample_size": backbone.resolution,
        "patch_size": backbone.patch,
        "num_embeds_ada_norm": backbone.num_classes or 1,
        "norm_eps": 1e-6,
        "time_scale": backbone.t_embedder.time_scale,
    }


def to_diffusers(backbone: DiT) -> dict[str, Tensor]:
    """The state dict of diffusers' transformer, tensors of any shape; an unconditional network gets one class."""
    own = backbone.state_dict()
    weights = {f"{theirs}.{kind}": own[f"{ours}.{kind}"] for ours, theirs in _OUTSIDE.items() for kind in _KINDS}
    head = backbone.patch**2, -1, backbone.channels  # (pixels of a patch, velocity and sigma, channels)
    for kind in _KINDS:
        weights[f"proj_out_2.{kind}"] = own[f"final_layer.linear.{kind}"].unflatten(0, head)[:, 0].flatten(0, 1)
    table = own.get("y_embedder.embedding_table.weight", torch.zeros(2, backbone.width))
    for place in range(backbone.depth):
        weights |= dict(_block(own, table, place))
    return {name: value.detach().clone().contiguous() for name, value in weights.items()}


def _block(own: Mapping[str, Tensor], table: Tensor, place: int) -> Iterator[tuple[str, Tensor]]:
    """A block's weights, with its copy of the embedders, under diffusers' names."""
    to, here = f"transformer_blocks.{place}", f"blocks.{place}"
    yield f"{to}.norm1.emb.{_CLASSES}", table
    for kind in _KINDS:
        for ours, theirs in _EMBEDDER.items():
            yield f"{to}.norm1.emb.{theirs}.{kind}", own[f"{ours}.{kind}"]
        for ours, theirs in _BLOCK.items():
            yield f"{to}.{theirs}.{kind}", own[f"{here}.{ours}.{kind}"]
        for part, theirs in zip(own[f"{here}.attn.qkv.{kind}"].chunk(3), _QKV, strict=True):
            yield f"{to}.{theirs}.{kind}", part


def from_diffusers(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict of our DiT from one of diffusers' transformer, tensors of any shape, without the computed positions.

    Raises:
        ValueError: the weights are of another transformer.
    """
    depth = len({name.split(".")[1] for name in weights if name.startswith("transformer_blocks.")})
    try:
        own = {f"{ours}.{kind}": weights[f"{theirs}.{kind}"] for ours, theirs in _OUTSIDE.items() for kind in _KINDS}
        emb = "transformer_blocks.0.norm1.emb"
        own |= {f"{o}.{kind}": weights[f"{emb}.{t}.{kind}"] for o, t in _EMBEDDER.items() for kind in _KINDS}
        for place in range(depth):
            at, here = f"transformer_blocks.{place}", f"blocks.{place}"
            for kind in _KINDS:
                own |= {f"{here}.{ours}.{kind}": weights[f"{at}.{theirs}.{kind}"] for ours, theirs in _BLOCK.items()}
                own[f"{here}.attn.qkv.{kind}"] = torch.cat([weights[f"{at}.{part}.{kind}"] for part in _QKV])
        table = weights[f"{emb}.{_CLASSES}"]
    except KeyError as error:
        raise ValueError(f"these are no weights of diffusers' DiT transformer: {error} is missing") from error
    return own if not table.any() else own | {"y_embedder.embedding_table.weight": table}
