"""The card that every number carries: all that decides whether it may stand beside another."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

# What was measured, by whose code and with what luck; numbers that differ in nothing else are those worth comparing.
NOT_PROTOCOL = ("seed", "commit", "checkpoint_step")

WORDS = {
    "sampler": "sampler",
    "nfe": "network calls per sample (NFE)",
    "stochastic": "whether sampling is stochastic",
    "diffusion": "diffusion coefficient of the SDE",
    "guidance": "guidance scale",
    "guidance_channels": "channels that guidance acts on",
    "ssc": "scale along the path (SSC)",
    "num_samples": "number of samples",
    "labels": "how labels are drawn",
    "reference": "reference set",
    "resize": "resizing of pictures before the features",
    "features": "network of the features",
    "ema": "whether the EMA weights sample",
    "precision": "precision of sampling",
}


@dataclass(frozen=True)
class ProtocolCard:
    """How a number was measured.

    Two numbers are comparable if all fields but `seed`, `commit` and `checkpoint_step` agree: those say which network
    was measured, not how. `short_hash` and `compare` leave them out.

    Arguments:
        sampler: the sampler's own settings.
        nfe: network calls per sample.
        stochastic: an SDE, not an ODE.
        diffusion: name of the SDE's diffusion; None for an ODE.
        guidance: scale; 1 is none.
        guidance_channels: how many channels it acts on; None is all.
        ssc: profile, s0 and s1; None without.
        num_samples: how many samples.
        labels: "balanced" (equal numbers per class), "random" or "none".
        reference: dataset, split, number and hash of the reference.
        resize: how pictures reach the feature network's size.
        features: the network's name and the hash of its weights.
        ema: whether averaged weights were used.
        precision: of the network while sampling.
        seed: of the samples.
        commit: of the code; None where it is not known.
        checkpoint_step: of the weights.

    Raises:
        ValueError: other labels.
    """

    sampler: Mapping[str, Any]
    nfe: int
    stochastic: bool
    num_samples: int
    labels: str
    reference: Mapping[str, Any]
    features: Mapping[str, Any]
    resize: str
    precision: str
    seed: int
    checkpoint_step: int
    diffusion: str | None = None
    guidance: float = 1.0
    guidance_channels: int | None = None
    ssc: Mapping[str, Any] | None = None
    ema: bool = True
    commit: str | None = None

    def __post_init__(self) -> None:
        if self.labels not in ("balanced", "random", "none"):
            raise ValueError(f"labels are balanced, random or none, got {self.labels!r}")

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    def to_json(self) -> str:
        """All fields, sorted by name; equal cards give equal text."""
        return json.dumps(self.to_dict(), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> ProtocolCard:
        """The card that `to_json` wrote."""
        return cls(**json.loads(text))

    @property
    def short_hash(self) -> str:
        """8 hexadecimal digits that are equal for comparable numbers."""
        return hashlib.sha256(json.dumps(self._protocol(), sort_keys=True).encode()).hexdigest()[:8]

    def _protocol(self) -> dict[str, Any]:
        return {name: _canonical(value) for name, value in self.to_dict().items() if name not in NOT_PROTOCOL}


def _canonical(value: Any) -> Any:
    """`value` as JSON would give it back, with one way of writing 1 and 1.0."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def compare(one: ProtocolCard, other: ProtocolCard) -> list[str]:
    """What keeps the numbers of two cards apart, a phrase for each field that differs; empty where they compare."""
    first, second = one._protocol(), other._protocol()
    return [f"{WORDS[name]}: {_differing(first[name], second[name])}" for name in WORDS if first[name] != second[name]]


def _differing(one: Any, other: Any) -> str:
    """Both values; of two mappings only the entries that differ."""
    if not (isinstance(one, dict) and isinstance(other, dict)):
        return f"{one} and {other}"
    names = [name for name in sorted({*one, *other}) if one.get(name) != other.get(name)]
    return ", ".join(f"{name} {one.get(name)} and {other.get(name)}" for name in names)
