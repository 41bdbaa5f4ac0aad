"""Checkpoints of SiT's and REPA's public code, turned into weights of our DiT on our time axis.

SiT runs time the other way: it is given s = 1 - t and returns data - noise. Both are folded into the weights and
end in this file: the sinusoid of 1 - t is a rotation of the sinusoid of t, which goes into the first linear map of the
time embedding, and the sign goes into the last linear map. REPA's axis and sign are ours.
"""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.flow.choices import check_choice
from flowexp.integrations.encoders.weights import read_plain, tensors_of

CONVENTIONS = ("sit", "repa")
_HEAD = ("final_layer.linear.weight", "final_layer.linear.bias")
_PATCHES = "x_embedder.proj.weight"
_TIME = "t_embedder.mlp.0.weight"
_OF_REPA = ("projectors.", "decoder_blocks.")  # how names begin that SiT's code never writes
_ARGUMENTS = {"sit": {"path_type", "loss_weight"}, "repa": {"path_type", "proj_coeff"}}  # of their train.py
_PATHS = {"linear": "linear", "gvp": "gvp", "cosine": "gvp", "vp": "sbdm_vp"}  # theirs, in lower case, and ours
_PREDICTIONS = {"velocity": "velocity", "v": "velocity", "noise": "eps"}


@dataclass(frozen=True)
class OfficialWeights:
    """A checkpoint of SiT's or REPA's code.

    weights: EMA weights by name. fingerprint: 16 digits of the file's SHA-256. arguments: those of the train.py that
    wrote it, as its parser had them; empty where the file has none.
    """

    weights: dict[str, Tensor]
    fingerprint: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


def read_official(path: Path) -> OfficialWeights:
    """The weights of a checkpoint file: a bare state dict, or `ema` of what train.py saves, which has `args` too.

    Raises:
        ValueError: the file is not there, is damaged, or holds code.
    """
    if not path.is_file():
        raise ValueError(f"there is no file {path}: give SiT's or REPA's released .pt file")
    content, fingerprint = read_plain(path, classes=[argparse.Namespace])
    of_training = isinstance(content, Mapping) and "ema" in content
    arguments = content.get("args") if of_training else None
    known = vars(arguments) if isinstance(arguments, argparse.Namespace) else {}
    return OfficialWeights(tensors_of(content["ema"] if of_training else content, path), fingerprint, known)


def convention_of(official: OfficialWeights, given: str | None = None) -> str:
    """The code that trained the weights, "sit" or "repa": by their names and arguments, else as `given`, else SiT.

    The names are the same in both but for REPA's projectors and the decoder blocks of its first release.

    Raises:
        ValueError: `given` is none of the two, or not the one that the file shows.
    """
    if given is not None:
        check_choice("convention", given, CONVENTIONS)
    shown, by = _shown(official)
    if shown and given not in (None, shown):
        raise ValueError(
            f"convention={given} contradicts the file: {by}, which {shown}'s code writes; leave convention out, or "
            f"give convention={shown}"
        )
    return shown or given or "sit"


def _shown(official: OfficialWeights) -> tuple[str | None, str]:
    """The convention by the content of the file, and the evidence for it."""
    if name := next((name for name in official.weights if name.startswith(_OF_REPA)), None):
        return "repa", f"it has weights {name}"
    for convention in ("repa", "sit"):
        if _ARGUMENTS[convention] <= set(official.arguments):
            return convention, f"it has the arguments {' and '.join(sorted(_ARGUMENTS[convention]))}"
    return None, ""


def check_training(official: OfficialWeights, interpolant: str, prediction: str) -> None:
    """Compares the config's path and prediction with the arguments that the weights were trained with.

    Raises:
        ValueError: they were trained as another kind of network, on another path or for another prediction.
    """
    model, arguments = str(official.arguments.get("model", "SiT")), official.arguments
    if not model.startswith("SiT"):
        raise ValueError(
            f"the weights are of {model}, and only SiT's and REPA's (SiT-XL/2 and the like) can be adopted"
        )
    _check_same("interpolant", interpolant, arguments.get("path_type"), _PATHS)
    _check_same("parameterization", prediction, arguments.get("prediction"), _PREDICTIONS)


def _check_same(key: str, ours: str, theirs: Any, names: Mapping[str, str]) -> None:
    trained = names.get(str(theirs).lower())
    if theirs is not None and trained != ours:
        advice = f"give {key}={trained}" if trained else "flowexp has no such choice"
        raise ValueError(f"the weights were trained with {theirs}, and {key} is {ours}: {advice}")


def convert(
    official: Mapping[str, Tensor], backbone: Backbone, convention: str, prediction: str = "velocity"
) -> dict[str, Tensor]:
    """A state dict for `backbone` from SiT's or REPA's weights, with its shapes and with predictions on our axis.

    convention: "sit" or "repa", whose code trained the weights; see `convention_of`. prediction: "velocity", whose sign
    turns with the axis, or "eps", SiT's "noise", whose does not. The half of the outputs that SiT never uses
    (learn_sigma) and REPA's projectors are left out.

    Raises:
        ValueError: the tensors do not fit the network, it reads t on another scale than theirs, or neither code trains
            such a prediction.
    """
    check_choice("convention", convention, CONVENTIONS)
    _check_time_scale(backbone)
    weights = in_our_convention(official, convention, prediction)
    _check(weights, backbone.state_dict())
    return weights


def in_our_convention(official: Mapping[str, Tensor], convention: str, prediction: str) -> dict[str, Tensor]:
    """The weights, of any shape, by our names and on our axis, whatever the network; see `convert`.

    Raises:
        ValueError: neither code trains such a prediction.
    """
    if prediction not in _PREDICTIONS.values():
        raise ValueError(f"SiT's and REPA's code trains velocity and eps, and the prediction is {prediction}")
    weights = {_modern(name, official): value for name, value in official.items() if not name.startswith("projectors.")}
    for name in filter(weights.__contains__, _HEAD):
        if _has_sigma(weights[name], weights.get(_PATCHES)):
            weights[name] = _without_sigma(weights[name], weights[_PATCHES].shape[1])
    if convention == "sit":
        weights |= {_TIME: _of_reversed_time(weights[_TIME])} if _is_map(weights.get(_TIME)) else {}
        weights |= {name: -weights[name] for name in _HEAD if name in weights and prediction == "velocity"}
    return weights


def _has_sigma(head: Tensor, patches: Tensor | None) -> bool:
    """Whether a head has twice the numbers of a patch, the second half being variances."""
    return patches is not None and patches.ndim == 4 and len(head) == 2 * patches[0].numel()


def _is_map(weight: Tensor | None) -> bool:
    """Whether it is of a linear map of the 2 n numbers of a sinusoid; others are refused when they are compared."""
    return weight is not None and weight.ndim == 2 and weight.shape[1] % 2 == 0


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
    if bad := next((name for name, value in weights.items() if not value.isfinite().all()), None):
        raise ValueError(f"the weights {bad} have entries that are NaN or infinite: fetch the file again")
