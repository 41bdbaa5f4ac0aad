"""The table of a sweep on the screen: what differs among its jobs, in short names, with the best of each marked."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from textwrap import fill

from flowexp.cli.shown_table import Lines, print_lines, shown, width_of
from flowexp.cli.terminal import console
from flowexp.records.job_table import JobRow, JobTable
from flowexp.records.number_names import better, by_weight, is_detail, short_name

BEST = "*"  # behind the best number of its column


def print_sweep(jobs: JobTable, in_csv: Path) -> None:
    """Prints the table, the best job, and where all numbers lie.

    A line for each job; a column for each where only that fits, and else with fewer numbers.
    """
    keys = by_weight(_telling(jobs))
    lines = _lines(jobs, keys)
    turned = [*zip(*lines, strict=True)]
    shown_keys = keys
    if width_of(lines) > console().width >= width_of(turned):
        lines = turned
    while width_of(lines) > console().width and len(shown_keys) > 1:
        shown_keys = shown_keys[:-1]
        lines = _lines(jobs, shown_keys)
    print_lines(lines, f"{len(jobs.rows)} job{'s' * (len(jobs.rows) != 1)}")
    for sentence in (_best_job(jobs, keys), _cards(jobs, shown_keys)):
        if sentence:
            print(fill(sentence, min(console().width, 120), subsequent_indent="  "))
    left_out = len(jobs.numbers) - len(shown_keys)
    print(f"all as CSV{f', with {left_out} more numbers' if left_out else ''}: {in_csv}")


def _telling(jobs: JobTable) -> list[str]:
    """The numbers that differ among jobs; of a single job, and where none does, all of them."""
    varied = [name for name in jobs.numbers if len({row.numbers.get(name) for row in jobs.rows}) > 1]
    return varied or jobs.numbers


def _lines(jobs: JobTable, keys: Sequence[str]) -> Lines:
    """A head and a line for each job, without the settings that all share; a status where one has not finished."""
    settings = _varied(jobs)
    names = _short_settings(settings)
    with_status = not all(row.is_finished for row in jobs.rows)
    best = {key: _best_of(jobs, key) for key in keys}
    lines = [["job", *names, *_unique(keys), *(["status"] if with_status else [])]]
    for row in jobs.rows:
        cells = [_number(row, key, is_best=row is best[key]) for key in keys]
        values = [_setting(row.settings.get(key, "")) for key in settings]
        lines.append([row.job, *values, *cells, *([row.status] if with_status else [])])
    return lines


def _varied(jobs: JobTable) -> list[str]:
    return [key for key in jobs.settings if key not in jobs.shared]


def _short_settings(keys: Sequence[str]) -> list[str]:
    """`T_min` of objective.T_min, where no other key ends so."""
    last = [key.rpartition(".")[2] for key in keys]
    return [short if last.count(short) == 1 else key for key, short in zip(keys, last, strict=True)]


def _unique(keys: Sequence[str]) -> list[str]:
    """Short names of numbers; the whole key where two would be called the same."""
    names = [short_name(key) for key in keys]
    return [name if names.count(name) == 1 else key for key, name in zip(keys, names, strict=True)]


def _setting(text: str) -> str:
    """A value as it was given, but of a long number three digits."""
    with suppress(ValueError):
        return shown(float(text)) if len(text) > 7 else text
    return text


def _number(row: JobRow, key: str, is_best: bool) -> str:
    value = row.numbers.get(key)
    return "" if value is None else f"{value:.3g}{BEST if is_best else ''}"


def _best_of(jobs: JobTable, key: str) -> JobRow | None:
    return jobs.best_of(key, better(key))


def _best_job(jobs: JobTable, keys: Sequence[str]) -> str:
    """`* best of its column; Fréchet, less is better: job 3 (T_min=50)`."""
    key, best = next(((key, row) for key in keys if (row := _best_of(jobs, key))), (None, None))
    if key is None or best is None:
        return ""
    settings = _varied(jobs)
    named = zip(_short_settings(settings), settings, strict=True)
    told = ", ".join(f"{short}={_setting(best.settings.get(key, ''))}" for short, key in named)
    way = f"{better(key)} is better"
    return f"{BEST} the best of its column; {short_name(key)}, {way}: job {best.job}{f' ({told})' if told else ''}"


def _cards(jobs: JobTable, keys: Sequence[str]) -> str:
    """`protocol cards: 39aa7a26 (Fréchet), 026508b9 (probe clean, probe dip)`; by job where jobs have several."""
    told: dict[str, list[str]] = {}
    for key in (key for key in keys if key in jobs.cards and not is_detail(key)):
        cards = {row.job: row.cards[key] for row in jobs.rows if key in row.cards}
        one = len({*cards.values()}) == 1
        for job, card in list(cards.items())[: 1 if one else None]:
            told.setdefault(card, []).append(short_name(key) if one else f"{short_name(key)} of job {job}")
    cards_of = [f"{card} ({', '.join(names)})" for card, names in told.items()]
    return f"protocol cards: {', '.join(cards_of)}" if told else ""
