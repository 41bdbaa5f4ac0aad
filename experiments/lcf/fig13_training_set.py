"""LCF Figure 13: do FM's features degrade near clean data only where it was trained on many images?

`make reproduce-lcf-fig13`. The paper does not say whether small sets were trained for as many steps or for as many
epochs: a figure for each reading. Every network is probed with the same images.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    denied,
    differences,
    dips_by_seed,
    judge_points,
    plot_probes,
    provided,
    summarise_probes,
)


def measure(lines: Lines) -> dict[str, Rows]:
    return {"probe": [row for line in lines for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    readings = dict.fromkeys(row["panel"] for row in tables["probe"])
    return {panel.replace(" ", "_"): plot_probes(panel_of(tables, panel), panel, "trained on") for panel in readings}


def panel_of(tables: dict[str, Rows], panel: str) -> Rows:
    """The rows of one reading of the figure."""
    return [row for row in tables["probe"] if row["panel"] == panel]


def summarise(tables: dict[str, Rows]) -> Rows:
    table = []
    for panel in dict.fromkeys(row["panel"] for row in tables["probe"]):
        rows = panel_of(tables, panel)
        for reading in dict.fromkeys(row["reading"] for row in rows):
            table += [{"trained for": panel, **row} for row in summarise_probes(rows, reading)]
    return table


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    judgements = {}
    for panel, end in (("equal steps", ""), ("equal epochs", "_equal_epochs")):
        rows = panel_of(tables, panel)
        sizes = sorted(dict.fromkeys(row["method"] for row in rows), key=_images)
        small, large = (dips_by_seed(rows, sizes[place]) for place in (0, -1))
        there, what = judge_points(large), "dip with all images"
        flat, grows = denied(judge_points(small)), judge_points(differences(large, small))
        judgements[f"small_sets_no_dip{end or '_equal_steps'}"] = provided(there, what, flat)
        judgements[f"dip_grows_with_the_set{end}"] = provided(there, what, grows)
    return judgements


def _images(method: str) -> int:
    """How many, of a line's name such as "1,000 images"."""
    return int(method.partition(" ")[0].replace(",", ""))
