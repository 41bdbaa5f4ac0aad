"""Checkpoints of SiT's and REPA's public code, turned into weights of our DiT on our time axis.

SiT runs time the other way: it is given s = 1 - t and returns data - noise. Both are folded into the weights, so that
nothing else in flowexp knows: the sinusoid of 1 - t is a rotation of the sinusoid of t, which goes into the first
linear map of the time embedding, and the sign goes into the last linear map. REPA's axis and sign are ours.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.encoders.weights import read_state_dict

CONVENTIONS = ("sit", "repa")
_HEAD = ("final_layer.linear.weight", "final_layer.linear.bias")
_TIME = "t_embedder.mlp.0.weight"


def read_official(path: Path) -> tuple[dict[str, Tensor], str]:
    """The EMA weights of a checkpoint file, a bare state dict or a training checkpoint's entry `ema`, and its hash.

    Raises:
        ValueError: the file is not there, is damaged, or holds code.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give SiT's or REPA's released .pt file")
    content, fingerprint = read_state_dict(path)
    return dict(content.get("ema", content)), fingerprint


def convert(official: Mapping[str, Tensor], backbone: Backbone, convention: str) -> dict[str, Tensor]:
    """A state dict for `backbone` that gives its velocity on our axis, from SiT's or REPA's weights.

    convention: "sit" or "repa", whose code trained the weights. The half of the outputs that SiT never uses
    (learn_sigma) and REPA's projectors are left out.

    Raises:
        ValueError: the tensors do not fit the network, or it reads t on another scale than theirs.
    """
    if convention not in CONVENTIONS:
        raise ValueError(f"convention must be one of {', '.join(CONVENTIONS)}, got {convention!r}")
    _check_time_scale(backbone)
    weights = {_modern(name, official): value for name, value in official.items() if not name.startswith("projectors")}
    own = backbone.state_dict()
    for name in _HEAD:
        if name in weights and weights[name].shape != own[name].shape:
            weights[name] = _without_sigma(weights[name], backbone.channels)
    if convention == "sit":
        weights[_TIME] = _of_reversed_time(weights[_TIME])
        weights |= {name: -weights[name] for name in _HEAD}
    _check(weights, own)
    return weights


def _modern(name: str, official: Mapping[str, Any]) -> str:
    """REPA's first release called the blocks behind its tap decoder_blocks and counted them anew."""
    match = re.fullmatch(r"decoder_blocks\.(\d+)\.(.*)", name)
    if match is None:
        return name
    encoder_depth = len({key.split(".")[1] for key in official if key.startswith("blocks.")})
    return f"blocks.{encoder_depth + int(match[1])}.{match[2]}"


def _without_sigma(head: Tensor, channels: int) -> Tensor:
    """The rows of the head that belong to the velocity: outputs are ordered (patch, 2 channels), channels fastest."""
    return head.unflatten(0, (-1, 2 * channels))[:, :channels].flatten(0, 1)


def _of_reversed_time(weight: Tensor) -> Tensor:
    """W' with W' [cos(f t) | sin(f t)] = W [cos(f (1 - t)) | sin(f (1 - t))], for SiT's frequencies f."""
    on_cos, on_sin = weight.double().chunk(2, dim=1)
    half = on_cos.shape[1]
    frequency = torch.exp(torch.arange(half, dtype=torch.float64) * (-math.log(10000.0) / half))
    cos, sin = frequency.cos(), frequency.sin()
    return torch.cat([on_cos * cos + on_sin * sin, on_cos * sin - on_sin * cos], dim=1).to(weight.dtype)


def _check_time_scale(backbone: Backbone) -> None:
    scale = getattr(getattr(backbone, "t_embedder", None), "time_scale", 1.0)
    if scale != 1:
        raise ValueError(
            f"SiT's and REPA's weights read t in [0, 1], and this network reads {scale:g} t: choose a backbone sit_..."
        )


def _check(weights: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> None:
    missing, unknown = sorted(own.keys() - weights.keys()), sorted(weights.keys() - own.keys())
    misshapen = [name for name in own if name in weights and own[name].shape != weights[name].shape]
    if missing or unknown or misshapen:
        raise ValueError(
            f"these weights are not those of this network: missing {missing[:3]}, unknown {unknown[:3]}, of another "
            f"shape {misshapen[:3]}; choose the backbone, the data and class_conditional of the checkpoint"
        )
