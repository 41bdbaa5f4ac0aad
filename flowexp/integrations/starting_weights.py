"""Weights to begin a training from: a run's, an export's, a published file's, fitted to a network that may be another.

What fits is taken, positions are resized, and what has another shape (a head for other channels, a table of other
classes) stays as it was drawn: each tensor is told.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.integrations.dit_weights import from_diffusers
from flowexp.integrations.published import CONFIG, WEIGHTS, load, read_weights
from flowexp.integrations.sit_checkpoints import convention_of, in_our_convention, read_official
from flowexp.records import zoo
from flowexp.records.files import fingerprint
from flowexp.records.files.json_files import read_object

HUB = "hub:"
TRANSFORMER = Path("transformer")
OURS_IN_DIFFUSERS = "FlowDiTTransformer2DModel"
_TABLE = "y_embedder.embedding_table.weight"
_POSITIONS = "pos_embed"


@dataclass(frozen=True)
class Source:
    """Weights by flowexp's names, and what is known of the network that they were trained in.

    name: where they come from. time_scale: the factor on its t, 1 of SiT and 1000 of DiT. path, prediction: of its
    training. None is not known.
    """

    name: str
    weights: Mapping[str, Tensor]
    time_scale: float | None = None
    path: str | None = None
    prediction: str | None = None

    @property
    def fingerprint(self) -> str:
        """Of the names and values of all tensors."""
        return fingerprint.of_weights(sorted(self.weights.items()))


@dataclass(frozen=True)
class Fitted:
    """One tensor's fate. what: taken, resized, left (as drawn anew) or unused (of the source); why: in words."""

    name: str
    what: str
    why: str = ""


def read_source(where: str) -> Source:
    """The weights of `where`: a folder of `export` or of diffusers, zoo:NAME, hub:NAME, a .safetensors or a .pt file.

    Raises:
        ValueError: there is nothing there, or nothing that holds weights.
    """
    if zoo.is_named(where):
        return _of_model(load(where), where)
    if where.startswith(HUB):
        return _of_model(load(where.removeprefix(HUB)), where)
    path = Path(where)
    if (path / CONFIG).is_file():
        return _of_model(load(path), where)
    if (path / TRANSFORMER / CONFIG).is_file():
        return _of_diffusers(path)
    if path.suffix == ".safetensors":
        return Source(where, read_weights(path))
    if path.is_file():
        return _of_official(path)
    raise ValueError(
        f"init={where} is no run, no export with a {CONFIG}, and no file of weights: give one, or hub:NAME for an "
        "export at the Hugging Face hub"
    )


def _of_model(model: Any, name: str) -> Source:
    return source_of(name, model.backbone, model.interpolant.name, model.parameterization.prediction)


def source_of(name: str, backbone: Backbone, path: str, prediction: str) -> Source:
    """The weights of a network that is there."""
    return Source(name, backbone.state_dict(), time_scale_of(backbone), path, prediction)


def _of_diffusers(path: Path) -> Source:
    config = read_object(path / TRANSFORMER / CONFIG)
    if (kind := config.get("_class_name")) != OURS_IN_DIFFUSERS:
        raise ValueError(
            f"init={path} holds diffusers' {kind}, and only {OURS_IN_DIFFUSERS}, which export format=diffusers writes, "
            "is the same function of t as ours"
        )
    weights = read_weights(path / TRANSFORMER / f"diffusion_pytorch_{WEIGHTS}")
    return Source(str(path), from_diffusers(weights), float(config["time_scale"]), "linear", "velocity")


def _of_official(path: Path) -> Source:
    """SiT's or REPA's checkpoint, on our axis."""
    official = read_official(path)
    prediction = {"noise": "noise", "velocity": "velocity", "v": "velocity"}.get(
        str(official.arguments.get("prediction", "velocity")), "velocity"
    )
    ours = "eps" if prediction == "noise" else "velocity"
    weights = in_our_convention(official.weights, convention_of(official), ours)
    return Source(str(path), weights, 1.0, None, prediction)


def time_scale_of(backbone: Backbone) -> float | None:
    """The factor on t of a network's embedding; None where it has none."""
    return getattr(getattr(backbone, "t_embedder", None), "time_scale", None)


def check_same_time(source: Source, backbone: Backbone) -> None:
    """Raises ValueError where the network reads t on another scale than the weights were trained for."""
    ours = time_scale_of(backbone)
    if None not in (source.time_scale, ours) and source.time_scale != ours:
        raise ValueError(
            f"the weights of init={source.name} read {source.time_scale:g} t, and backbone {backbone.name} reads "
            f"{ours:g} t: choose a backbone {'sit_' if source.time_scale == 1 else 'dit_'}..., as they have"
        )


@torch.no_grad()
def fit(backbone: Backbone, source: Source) -> list[Fitted]:
    """Puts into `backbone` what fits of `source`, and tells of each tensor what became of it.

    Raises:
        ValueError: no tensor fits, or the network reads t on another scale.
    """
    check_same_time(source, backbone)
    own = backbone.state_dict()
    fitted = [_fit(name, value, source.weights.get(name)) for name, value in own.items()]
    told = [each for each, _ in fitted]
    told += [Fitted(name, "unused", "this network has no such tensor") for name in source.weights if name not in own]
    if not any(each.what == "taken" and each.name != _POSITIONS for each in told):
        raise ValueError(
            f"no tensor of init={source.name} fits backbone {backbone.name}: choose the backbone that it was trained "
            f"with; it has {', '.join(list(source.weights)[:3])}, ..."
        )
    backbone.load_state_dict({each.name: value for each, value in fitted})
    return told


def _fit(name: str, own: Tensor, given: Tensor | None) -> tuple[Fitted, Tensor]:
    """What becomes of the network's tensor `own`, and its new value."""
    if given is None:
        return Fitted(name, "left", "not among the weights"), own
    if given.shape == own.shape:
        return Fitted(name, "taken"), given
    if name == _POSITIONS and _is_grid(own) and _is_grid(given) and given.shape[-1] == own.shape[-1]:
        before, after = math.isqrt(given.shape[1]), math.isqrt(own.shape[1])
        return Fitted(name, "resized", f"from {before} x {before} to {after} x {after} patches"), _resized(given, after)
    if name == _TABLE and given.shape[1:] == own.shape[1:]:
        table = torch.cat([own[:-1], given[-1:].to(own)])
        return Fitted(name, "resized", f"no class taken, {len(own) - 1} classes new, {len(given) - 1} unused"), table
    return Fitted(name, "left", f"{_size(given)} among the weights, {_size(own)} here"), own


def _is_grid(positions: Tensor) -> bool:
    return positions.ndim == 3 and math.isqrt(positions.shape[1]) ** 2 == positions.shape[1]


def _resized(positions: Tensor, side: int) -> Tensor:
    """Positions (1, N, D) of a square grid on another one, bicubic, as is usual for vision transformers."""
    before = math.isqrt(positions.shape[1])
    grid = positions.mT.unflatten(2, (before, before))
    return F.interpolate(grid, (side, side), mode="bicubic", align_corners=False).flatten(2).mT


def _size(value: Tensor) -> str:
    return " x ".join(map(str, value.shape)) or "a number"


def in_lines(told: Iterable[Fitted]) -> list[str]:
    """A line for every tensor; those of all blocks with one fate share it: `blocks.*.attn.qkv.weight (12): taken`."""
    groups: dict[tuple[str, str, str], int] = {}
    for each in told:
        key = re.sub(r"\.\d+\.", ".*.", each.name, count=1), each.what, each.why
        groups[key] = groups.get(key, 0) + 1
    return [
        f"{name}{f' ({count})' if count > 1 else ''}: {what}{f', {why}' if why else ''}"
        for (name, what, why), count in groups.items()
    ]
