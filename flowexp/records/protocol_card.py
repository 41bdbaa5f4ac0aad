"""The card that every number carries, and which numbers may not stand beside each other. Imports no torch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from flowexp.flow.choices import check_choice
from flowexp.records.files import fingerprint

# What was measured, by whose code and with what luck; numbers that differ in nothing else are those worth comparing.
NOT_PROTOCOL = ("seed", "commit", "checkpoint_step")
_RESULTS = ("proposal",)  # of a calibration: what it proposes, for the record
_OPTIONAL = ("guide", "pictures", "captions")  # parts of sampling: a card without one has the hash of its other fields
_FROM_SAMPLER = ("nfe", "stochastic", "diffusion", "guidance", "guidance_channels", "ssc")
_DIGITS = 8  # of a card
ABSENT = "absent"
CONDITIONED_ON = ("balanced", "random", "captions", "none")

WORDS = {
    "sampler": "sampler",
    "nfe": "network calls per sample (NFE)",
    "stochastic": "whether sampling is stochastic",
    "diffusion": "diffusion coefficient of the SDE",
    "guidance": "guidance scale",
    "guidance_channels": "channels that guidance acts on",
    "guide": "network of autoguidance",
    "ssc": "scale along the path (SSC)",
    "num_samples": "number of samples",
    "labels": "labels of the samples",
    "captions": "which captions samples get",
    "pictures": "how samples become pictures",
    "reference": "reference set",
    "resize": "resizing of pictures before the features",
    "features": "network of the features",
    "metrics": "options of the metric",
    "ema": "whether the EMA weights sample",
    "precision": "precision of sampling",
}


@dataclass(frozen=True)
class ProtocolCard:
    """How a number was measured.

    Two numbers are comparable if all fields but `seed`, `commit` and `checkpoint_step` agree: those name the measured
    network and not the method. Hashes leave them out.

    Arguments:
        sampler: the settings of the sampler.
        nfe: network calls per sample, counted; of a solver with a tolerance the mean, which is no part of the hash.
        stochastic: an SDE, not an ODE.
        diffusion: name of the SDE's diffusion; None for an ODE.
        guidance: scale; 1 is none.
        guidance_channels: how many channels it acts on; None is all.
        captions: which they are and in what order samples take them; empty without.
        guide: which weaker network autoguidance has; None without.
        ssc: profile, s0 and s1; None without.
        num_samples: how many samples.
        labels: "balanced" (equal numbers per class), "random", "captions" or "none".
        pictures: what makes pictures of samples that are none, such as a decoder; empty for pixels.
        reference: dataset, split, number and hash of the reference.
        resize: how pictures reach the feature network's size.
        features: the network's name and the hash of its weights.
        metrics: options by metric, such as k of precision and recall.
        ema: whether averaged weights were used.
        precision: of the network while sampling.
        seed: of the samples.
        commit: of the code; None where it is not known.
        checkpoint_step: of the weights.

    Raises:
        ValueError: other labels.
    """

    sampler: Mapping[str, Any]
    nfe: float
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
    guide: Mapping[str, Any] | None = None
    ssc: Mapping[str, Any] | None = None
    captions: Mapping[str, Any] = field(default_factory=dict)
    pictures: Mapping[str, Any] = field(default_factory=dict)
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    ema: bool = True
    commit: str | None = None

    def __post_init__(self) -> None:
        check_choice("labels of a card", self.labels, CONDITIONED_ON)

    def to_dict(self) -> dict[str, Any]:
        """All fields as plain values."""
        return asdict(self)

    @property
    def short_hash(self) -> str:
        """8 hexadecimal digits that are equal for samples and features of one protocol, whatever was made of them."""
        return fingerprint.of_values(self._protocol(), _DIGITS)

    def hash_of(self, metric: str) -> str:
        """8 hexadecimal digits that are equal for comparable numbers of `metric`: its options count, no others."""
        options = _canonical(self.metrics.get(metric, {}))
        own = {"metrics": {metric: options}} if options else {}
        return fingerprint.of_values(self._protocol() | own, _DIGITS)

    def _protocol(self) -> dict[str, Any]:
        fields = {name: _canonical(value) for name, value in self.to_dict().items() if value or name not in _OPTIONAL}
        measured = ("nfe",) if "rtol" in self.sampler else ()  # an adaptive solver calls a network as often as it needs
        return {name: value for name, value in fields.items() if name not in (*NOT_PROTOCOL, "metrics", *measured)}


def protocol_hash(protocol: Mapping[str, Any]) -> str:
    """8 hexadecimal digits of what decides a number that has no samples behind it: all of `protocol` but luck."""
    decides = {name: _canonical(value) for name, value in protocol.items() if name not in NOT_PROTOCOL}
    return fingerprint.of_values(decides, _DIGITS)


def _canonical(value: Any) -> Any:
    """`value` as JSON would give it back, with one way of writing 1 and 1.0."""
    if isinstance(value, Mapping):
        return {str(name): _canonical(entry) for name, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_canonical(entry) for entry in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


# --- what keeps numbers apart ----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Difference:
    """A field of a protocol that is not the same everywhere.

    Arguments:
        field: its name, `sampler.num_steps` for one inside of another.
        values: one for each protocol.
        decides: False for those that name the network and the random draws, not the method: seed, commit, step.
    """

    field: str
    values: tuple[str, ...]
    decides: bool

    def __str__(self) -> str:
        return f"{WORDS.get(self.field, self.field)} {' and '.join(dict.fromkeys(self.values))}"


def differences(protocols: Sequence[Mapping[str, Any]]) -> list[Difference]:
    """The fields that differ, compared one by one; those that decide come first."""
    flat = [flatten(protocol) for protocol in protocols]
    fields = list(dict.fromkeys(field for one in flat for field in one))
    found = [
        Difference(field, tuple(str(one.get(field, ABSENT)) for one in flat), not _is_luck(field))
        for field in fields
        if any(one.get(field, ABSENT) != flat[0].get(field, ABSENT) for one in flat)
        and not any(other.startswith(f"{field}.") for other in fields)  # None here, and its parts are compared there
        and not _is_of_another_metric(field, protocols)
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
    last = field.rpartition(".")[2]
    return last in (*NOT_PROTOCOL, "card", "short_hash") or field.partition(".")[0] in ("cards", *_RESULTS)


def _is_of_another_metric(field: str, protocols: Sequence[Mapping[str, Any]]) -> bool:
    """Whether it is an option of a metric that was not measured everywhere: it keeps no two numbers apart."""
    group, _, rest = field.partition(".")
    if group != "metrics" or not all(isinstance(protocol.get(group), Mapping) for protocol in protocols):
        return False
    return any(rest.partition(".")[0] not in protocol[group] for protocol in protocols)


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
    try:
        return ProtocolCard(**card).short_hash
    except (TypeError, ValueError):  # a card of an older or newer flowexp
        return None


# --- numbers in a table ----------------------------------------------------------------------------------------------


def cards_of(summary: Mapping[str, Any]) -> dict[str, str]:
    """The hash of each number's card in the content of a `summary.json`, by the number's key, where it has one."""
    return {key: card for key, (card, _) in _with_protocols(summary).items()}


def _with_protocols(summary: Mapping[str, Any]) -> dict[str, tuple[str, Mapping[str, Any]]]:
    measured = summary.get("protocol") or {}
    protocols = [protocol for protocol in measured.values() if isinstance(protocol, Mapping)]
    return {key: (card, one) for one in protocols for key, card in (one.get("cards") or {}).items()}


def keeps_apart(
    summaries: Mapping[str, Mapping[str, Any]], only_with: str | None = None, varied: Collection[str] = ()
) -> list[str]:
    """A sentence for all numbers of one key that stand under different cards: which, where, and what differs.

    summaries: contents of `summary.json` by the name of their place, such as "job 0". only_with: leaves out keys that
    this place does not have. varied: settings or groups that differ on purpose, as a sweep's: they are no reason.
    """
    wanted = None if only_with is None else cards_of(summaries[only_with])
    places: dict[str, dict[str, list[str]]] = {}
    protocols: dict[tuple[str, str], Mapping[str, Any]] = {}
    for place, summary in summaries.items():
        for key, (card, protocol) in _with_protocols(summary).items():
            if wanted is None or key in wanted:
                places.setdefault(key, {}).setdefault(card, []).append(place)
                protocols[key, card] = protocol
    alike: dict[tuple[str, str], list[str]] = {}  # numbers that differ in the same and at the same places: a sentence
    for key, by_card in places.items():
        if len(by_card) > 1:
            why = _what_differs([protocols[key, card] for card in by_card], varied)
            if why is not None:
                alike.setdefault((why, str([*by_card.values()])), []).append(key)
    return [
        f"{_listed(keys)}: {_under([places[key] for key in keys])} do not compare ({why})"
        for (why, _), keys in alike.items()
    ]


def _what_differs(protocols: Sequence[Mapping[str, Any]], varied: Collection[str]) -> str | None:
    """In words; None where all that differs is varied on purpose."""
    deciding = [difference for difference in differences(protocols) if difference.decides]
    beyond = [d for d in deciding if d.field.partition(".")[0] not in _FROM_SAMPLER]
    by_sampler = any(d.field.startswith("sampler.") for d in beyond)
    reasons = [d for d in (beyond if by_sampler else deciding) if not _is_varied(d.field, varied)]
    if deciding and not reasons:
        return None
    return _listed([str(difference) for difference in reasons], most=4, between="; ")


def _is_varied(field: str, varied: Collection[str]) -> bool:
    """Whether a setting, or the group that it is in, is among the varied; `ssc=` sets keys of the sampler."""
    groups = {"sampler" if setting == "ssc" else setting for setting in varied}
    return any(field == group or field.startswith(f"{group}.") for group in groups)


def _under(by_card: Sequence[Mapping[str, Sequence[str]]]) -> str:
    """`card 1a, 2b (job 0) and card 3c, 4d (job 1)`: the cards of several numbers that lie at the same places."""
    places = [_listed(where) for where in by_card[0].values()]
    cards = [", ".join(dict.fromkeys(alike)) for alike in zip(*by_card, strict=True)]
    named = [f"card {card} ({where})" for card, where in zip(cards, places, strict=True)]
    return _listed(named, most=4, between=" and ")


def _listed(words: Sequence[str], most: int = 3, between: str = ", ") -> str:
    rest = len(words) - most
    return between.join(words[:most]) + (f" and {rest} more" if rest > 0 else "")
