"""Results as one table: what was compared, the ratio with its spread, and the promise beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.timing import Spread, Timings

COLUMNS = (
    "case", "this", "against", "ratio", "quartiles", "median within", "promise", "met", "this takes", "that takes",
)  # fmt: skip


@dataclass(frozen=True)
class Promise:
    """A bound on the median ratio: from above, or from below with `at_least`."""

    limit: float
    at_least: bool = False

    def holds(self, ratio: Spread) -> bool:
        return ratio.median >= self.limit if self.at_least else ratio.median <= self.limit

    def verdict(self, ratio: Spread) -> str:
        """Whether the median is on the right side, and whether noise alone could have put it there."""
        low, high = ratio.interval
        doubt = ", within noise" if low <= self.limit <= high and low < high else ""
        return ("yes" if self.holds(ratio) else "NO") + doubt

    def __str__(self) -> str:
        return f"{'≥' if self.at_least else '≤'} {self.limit:g}"


@dataclass(frozen=True)
class Row:
    """One ratio: `this` over `against`, with the median seconds of both, or of memory the MB."""

    this: str
    against: str
    ratio: Spread
    seconds: tuple[float, float]
    promise: Promise | None = None
    unit: str = "s"


@dataclass(frozen=True)
class Figures:
    """A line of the second table: what a machine does, where a ratio alone would say less."""

    what: str
    values: Mapping[str, str]


@dataclass(frozen=True)
class Result:
    """What a case found: its rows, what has to be said about them, and its figures, which all have the same columns."""

    rows: Sequence[Row]
    notes: Sequence[str] = field(default_factory=tuple)
    figures: Sequence[Figures] = field(default_factory=tuple)


def compare(timings: Timings, this: str, against: str, promise: Promise | None = None) -> Row:
    """The row for two contestants of a comparison."""
    seconds = (timings.time(this), timings.time(against))
    return Row(this, against, timings.ratio(this, against), seconds, promise)


def to_markdown(results: Mapping[str, Result], judged: bool = True) -> str:
    """Markdown tables of ratios and figures, and the notes below them; unjudged, the column `met` stays empty."""
    parts = [_table(COLUMNS, [_cells(case, row, judged) for case, result in results.items() for row in result.rows])]
    for case, result in results.items():
        if result.figures:
            columns = ("case", "what", *result.figures[0].values)
            parts.append(_table(columns, [(case, line.what, *line.values.values()) for line in result.figures]))
    notes = [f"- {case}: {note}" for case, result in results.items() for note in result.notes]
    return "\n\n".join([*parts, *(["\n".join(notes)] if notes else [])]) + "\n"


def _table(columns: tuple[str, ...], lines: Sequence[tuple[str, ...]]) -> str:
    """A markdown table whose columns line up."""
    widths = [max(map(len, cells)) for cells in zip(columns, *lines, strict=True)]
    rule = tuple("-" * width for width in widths)
    return "\n".join(f"| {' | '.join(map(str.ljust, line, widths))} |" for line in (columns, rule, *lines))


def _cells(case: str, row: Row, judged: bool) -> tuple[str, ...]:
    ratio, promise = row.ratio, "" if row.promise is None else str(row.promise)
    met = row.promise.verdict(ratio) if row.promise is not None and judged else ""
    spans = (f"{_ratio(low)} .. {_ratio(high)}" for low, high in ((ratio.low, ratio.high), ratio.interval))
    return (
        case,
        row.this,
        row.against,
        _ratio(ratio.median),
        *spans,
        promise,
        met,
        *(_amount(each, row.unit) for each in row.seconds),
    )


def _ratio(value: float) -> str:
    return f"{value:.3f}" if 0.1 <= value < 10 else f"{value:.3g}"


def _amount(value: float, unit: str) -> str:
    return f"{value:.0f} {unit}" if unit != "s" else _time(value)


def _time(seconds: float) -> str:
    return f"{seconds:.3g} s" if seconds >= 1 else f"{1000 * seconds:.3g} ms"
