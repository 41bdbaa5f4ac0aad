"""Whether numbers may stand beside each other: the fields in which their protocols differ."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

ABSENT = "absent"


@dataclass(frozen=True)
class Difference:
    """A field of a protocol that is not the same in all runs.

    Arguments:
        field: its name, `sampler.num_steps` for one inside of another.
        values: one for each run.
        decides: False for those that say which network was measured and with what luck, not how: seed, commit, step.
    """

    field: str
    values: tuple[str, ...]
    decides: bool


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The fields that differ, compared one by one; those that decide come first."""
    flat = [flatten(protocol) for protocol in protocols]
    fields = list(dict.fromkeys(field for one in flat for field in one))
    found = [
        Difference(field, tuple(str(one.get(field, ABSENT)) for one in flat), not _is_luck(field))
        for field in fields
        if any(one.get(field, ABSENT) != flat[0].get(field, ABSENT) for one in flat)
    ]
    return sorted(found, key=lambda difference: not difference.decides)


def flatten(protocol: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: `{"sampler": {"s0": 1}}` is `{"sampler.s0": 1}`."""
    flat: dict[str, Any] = {}
    for key, value in protocol.items():
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = value
    return flat


def _is_luck(field: str) -> bool:
    from flowexp.metrics.card import NOT_PROTOCOL  # the metrics' package takes seconds to import

    return field.rpartition(".")[2] in (*NOT_PROTOCOL, "card", "short_hash")


def card_hash(protocol: Mapping[str, Any]) -> str | None:
    """The short hash of a protocol card: `short_hash`, `card`, or that of the card that either is."""
    if isinstance(protocol.get("card"), str):
        return str(protocol["card"])
    for candidate in (protocol, protocol.get("card")):
        if isinstance(candidate, Mapping) and "short_hash" in candidate:
            return str(candidate["short_hash"])
        if isinstance(candidate, Mapping) and {"sampler", "features", "checkpoint_step"} <= candidate.keys():
            return _hash_of(candidate)
    return None


def _hash_of(card: Mapping[str, Any]) -> str | None:
    from flowexp.metrics.card import ProtocolCard

    try:
        return ProtocolCard(**card).short_hash
    except (TypeError, ValueError):  # a card of an older or newer flowexp
        return None
