"""Several folders as the runs of one page: what was measured of one run is one run, and labels are distinct."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from flowexp.reporting.reading import Run, read_run


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs in `folders`, with distinct labels. Raises ValueError where one is no run folder or is given twice.

    Folders that measured different things of the same run at the same step, such as a diagnosis and a calibration of
    SSC, become one run of the first one's name; two that measured the same thing stay beside each other.
    """
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise ValueError("runs holds the same folder twice: give each run once")
    runs: list[Run] = []
    for found in map(read_run, folders):
        place = next((place for place, run in enumerate(runs) if _belong_together(run, found)), None)
        if place is None:
            runs.append(found)
        else:
            runs[place] = _together(runs[place], found)
    return _with_distinct_labels(runs)


def _belong_together(one: Run, other: Run) -> bool:
    of_one_run = one.home == other.home or (bool(one.origin) and one.origin == other.origin)
    of_one_step = one.step == other.step or not (one.measured and other.measured)
    measured_apart = (one.measures or other.measures) and not set(one.names) & set(other.names)
    return of_one_run and of_one_step and measured_apart


def _together(one: Run, other: Run) -> Run:
    """All that both folders have; where they differ, the origin of the run is that of the first."""
    parts = [part.settings for part in (one, other)]
    return replace(
        one,
        settings="\n".join([parts[0], f"# of {other.folder.resolve().name}", parts[1]]),
        summary={
            **other.summary,
            **one.summary,
            "verdicts": [verdict.data() for verdict in (*one.verdicts, *other.verdicts)],
        },
        measured=(*one.measured, *other.measured),
        training=one.training or other.training,
        remarks=tuple(dict.fromkeys((*one.remarks, *other.remarks))),
        measures=one.measures and other.measures,
    )


def _with_distinct_labels(runs: Sequence[Run]) -> list[Run]:
    """Append to labels that occur twice the shortest ends of the folders' paths that differ."""
    names = Counter(run.label for run in runs)
    twins = [run for run in runs if names[run.label] > 1]
    paths = {run.folder: run.folder.resolve().parts for run in twins}
    depth = next(depth for depth in range(1, 99) if len({path[-depth:] for path in paths.values()}) == len(paths))
    places = {folder: "/".join(path[-depth:]) for folder, path in paths.items()}
    return [replace(run, label=f"{run.label} ({places[run.folder]})") if names[run.label] > 1 else run for run in runs]
