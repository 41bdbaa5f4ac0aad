"""One page of one run, of several side by side, or of a sweep: a single HTML file that needs nothing beside it."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from flowexp.records.curves import number
from flowexp.records.number_names import short_name
from flowexp.records.verdict import Verdict
from flowexp.reporting.drawing import sparkline
from flowexp.reporting.numbers import MISSING, group_numbers, show
from flowexp.reporting.reading import Cells, Run
from flowexp.reporting.sections import sections_of, training_charts
from flowexp.reporting.sweep import Sweep, sweep_charts

ACRONYMS = {"ssc": "SSC", "knn": "kNN", "fid": "FID", "sfid": "sFID", "kid": "KID", "mmd": "MMD"}
# A path from the root of a file system, on any system, and not the middle of a relative one or of an address.
ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\~%+-])(?:~|[A-Za-z]:)?(?:[/\\][\w.@%+~-]+){2,}[/\\]?")


def render_runs(runs: Sequence[Run], most_pictures: int = 12, pages: Sequence[str] = ()) -> str:
    """The page of one or several runs as HTML.

    Arguments:
        most_pictures: of each measurement; of more, so many evenly chosen steps.
        pages: of the same run's diagnoses, relative to where this one will lie.
    """
    groups = group_numbers(runs)
    histories = [value.history for group in groups for values in group.numbers.values() for value in values]
    return template("runs.html.jinja").render(
        title=" · ".join(run.label for run in runs),
        runs=runs,
        verdicts=verdicts_of(runs),
        datasets=datasets_of(runs),
        groups=groups,
        repeated=any(len(history) > 1 for history in histories),
        plan=side_by_side([run.origin.get("plan") for run in runs]),
        origin=side_by_side([origin_of(run) for run in runs]),
        training=training_charts(runs),
        sections=sections_of(runs, most_pictures),
        pages=pages,
    )


def render_sweep(sweep: Sweep) -> str:
    """The page of a sweep as HTML: its table with a link to each job, and each number over the settings."""
    title = f"sweep {sweep.folder.resolve().name}"
    return template("sweep.html.jinja").render(title=title, sweep=sweep, charts=sweep_charts(sweep))


def template(name: str) -> Any:
    """A template of this folder, with what all of them use."""
    folder = Path(__file__).parent / "templates"
    environment = Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=without_paths,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"cell": show_cell, "spark": sparkline, "words": words, "capital": capital, "digits": show}
    environment.filters |= {"plainly": plainly, "short": short_name, "last_part": last_part}
    environment.globals["MISSING"] = MISSING
    return environment.get_template(name)


def side_by_side(tables: Sequence[Any]) -> dict[str, list[str]]:
    """Settings of several runs by field, a value for each run; a dash where a run has none."""
    dicts = [table if isinstance(table, dict) else {} for table in tables]
    fields = dict.fromkeys(field for table in dicts for field in table)
    return {field: [str(table.get(field, MISSING)) for table in dicts] for field in fields}


def origin_of(run: Run) -> dict[str, str]:
    """Where a run comes from, in a line for each thing."""
    known = {
        field: run.origin.get(field) for field in ("commit", "seed", "machine", "versions", "training_key", "command")
    }
    machine, versions = known["machine"], known["versions"]
    if isinstance(machine, dict):
        known["machine"] = f"{machine.get('processor')}, {machine.get('cores')} cores, {machine.get('system')}"
    if isinstance(versions, dict):
        known["versions"] = ", ".join(f"{name} {version}" for name, version in versions.items() if version)
    if "step" in run.summary:
        known = {"last step": run.summary["step"], **known}
    return {field.replace("_", " "): str(value) for field, value in known.items() if value is not None}


def show_cell(cells: Cells, column: str) -> str:
    """A cell of a CSV with four digits; words as they are, a dash for an empty one."""
    text = cells.get(column, "")
    value = number(text)
    if not text or (math.isnan(value) and text.lower() != "nan"):
        return text or MISSING
    return show(value)


def last_part(key: str) -> str:
    """`T_min` of objective.T_min."""
    return key.rpartition(".")[2]


def plainly(value: Any) -> str:
    """A cell of a recipe's table; a number with four digits, a dash for nothing."""
    if value is None or value == "":
        return MISSING
    return show(value) if isinstance(value, float) else str(value)


def words(name: str) -> str:
    """A measurement's name as a heading: `noise_levels` is `Noise levels`, `ssc_calibration` is `SSC calibration`."""
    first, *others = [ACRONYMS.get(word, word) for word in name.split("_")]
    return " ".join([first[:1].upper() + first[1:] if first.islower() else first, *others])


def capital(words: str) -> str:
    """The words with a capital at their beginning; the others keep theirs."""
    return words[:1].upper() + words[1:]


def verdicts_of(runs: Sequence[Run]) -> dict[str, list[list[Verdict]]]:
    """The verdicts by measurement, a list for each run."""
    by_run = [run.verdicts_by_name for run in runs]
    return {name: [verdicts.get(name, []) for verdicts in by_run] for name in {k: None for v in by_run for k in v}}


def datasets_of(runs: Sequence[Run]) -> dict[str, list[str]]:
    """The labels of the runs by the dataset that they were trained on, where that is known."""
    found: dict[str, list[str]] = {}
    for run in runs:
        plan = run.origin.get("plan")
        if isinstance(plan, dict) and "data" in plan:
            found.setdefault(str(plan["data"]).split(",")[0], []).append(run.label)
    return found


def without_paths(value: Any) -> Any:
    """What a template shows, with the name alone of every absolute path: a page names no folder of the machine.

    Markup, which is drawn here, and pictures stay as they are.
    """
    if not isinstance(value, str) or isinstance(value, Markup) or value.startswith("data:image/"):
        return value
    return ABSOLUTE_PATH.sub(lambda found: "…/" + re.split(r"[/\\]", found[0].rstrip("/\\"))[-1], value)
