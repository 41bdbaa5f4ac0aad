"""The table of numbers: what every run ended with, how that was measured, and whether the numbers compare."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flowexp.records.protocol_card import Difference, card_hash, differences, flatten
from flowexp.reporting.reading import Measured, Run

MISSING = "–"


@dataclass(frozen=True)
class Value:
    """A number as one run has it.

    Arguments:
        value: the last one; None where the run has not measured it.
        step: when.
        history: all values by step.
    """

    value: float | None = None
    step: int | None = None
    history: tuple[float, ...] = ()

    @property
    def shown(self) -> str:
        """Four digits, `NaN`, or a dash where there is none."""
        return MISSING if self.value is None else show(self.value)

    @property
    def is_broken(self) -> bool:
        """Measured, but no finite number."""
        return self.value is not None and not math.isfinite(self.value)


@dataclass(frozen=True)
class Group:
    """The numbers of one measurement.

    Arguments:
        numbers: by key, a value for each run.
        protocols: how each run measured them, as one level of settings.
        hashes: of the protocol's card, None where it has none.
        differences: fields in which the runs' protocols differ; runs without this measurement do not count.
        compared: labels of the runs that `differences` has values of.
    """

    name: str
    numbers: dict[str, list[Value]]
    protocols: list[dict[str, Any]]
    hashes: list[str | None]
    differences: list[Difference]
    compared: list[str]

    @property
    def settings(self) -> dict[str, list[str]]:
        """The protocols by field, a value for each run."""
        fields = dict.fromkeys(field for protocol in self.protocols for field in protocol)
        return {field: [str(protocol.get(field, MISSING)) for protocol in self.protocols] for field in fields}

    @property
    def compares(self) -> bool:
        """Whether the numbers may stand beside each other."""
        return not any(difference.decides for difference in self.differences)


def group_numbers(runs: Sequence[Run]) -> list[Group]:
    """A group for each measurement with numbers, in the order in which the runs took them."""
    names = list(dict.fromkeys(name for run in runs for name in run.names))
    groups = [_group(name, runs) for name in names]
    return [group for group in groups if group.numbers] + _numbers_without_measurement(runs)


def _group(name: str, runs: Sequence[Run]) -> Group:
    entries = [run.of(name) for run in runs]
    keys = dict.fromkeys(key for own in entries for entry in own for key in entry.scalars)
    numbers = {key: [_value(key, own) for own in entries] for key in keys}
    protocols = [own[-1].protocol if own else {} for own in entries]
    taken = [(run.label, protocol) for run, own, protocol in zip(runs, entries, protocols, strict=True) if own]
    found = differences([protocol for _, protocol in taken]) if len(taken) > 1 else []
    hashes = [card_hash(protocol) for protocol in protocols]
    return Group(name, numbers, [*map(flatten, protocols)], hashes, found, [label for label, _ in taken])


def _value(key: str, entries: Sequence[Measured]) -> Value:
    having = [entry for entry in entries if key in entry.scalars]
    if not having:
        return Value()
    return Value(having[-1].scalars[key], having[-1].step, tuple(entry.scalars[key] for entry in having))


def _numbers_without_measurement(runs: Sequence[Run]) -> list[Group]:
    """The numbers of a summary beyond the measurements, such as the network calls of `flowexp.sample`."""
    measured = {key for run in runs for entry in run.measured for key in entry.scalars}
    scalars = [_scalars_of(run.summary) for run in runs]
    keys = dict.fromkeys(key for one in scalars for key in one if key not in measured)
    if not keys:
        return []
    numbers = {key: [Value(one.get(key), None) for one in scalars] for key in keys}
    return [Group("summary", numbers, [{} for _ in runs], [None for _ in runs], [], [])]


def _scalars_of(summary: Mapping[str, Any]) -> dict[str, float]:
    scalars = summary.get("scalars")
    found = scalars.items() if isinstance(scalars, dict) else ()
    return {key: float(value) for key, value in found if isinstance(value, int | float)}


def show(value: float) -> str:
    """Four digits, as everywhere; `NaN` and `∞` where it is no finite number."""
    if math.isnan(value):
        return "NaN"
    return f"{value:.4g}" if math.isfinite(value) else ("∞" if value > 0 else "−∞")
