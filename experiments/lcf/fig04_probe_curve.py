"""LCF Figure 4: do features of nearly clean images lose classes in FM, and does LCF keep them?

`make reproduce-fig4`, or `python -m flowexp.reproduce lcf/fig04`. A figure for each dataset: a panel for each reading
of the probe, a line for each method, dashed ones for the same probe on raw pixels and on a frozen encoder's features.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    clean_by_seed,
    dips_by_seed,
    judge_points,
    plot_probes,
    summarise_probes,
)

POINT = 0.01  # of accuracy: the smallest dip that counts


def measure(lines: Lines) -> dict[str, Rows]:
    return {"curve": [row for line in lines for row in line.rows("probe")]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    panels = dict.fromkeys(row["panel"] for row in tables["curve"])
    return {panel: plot_probes([row for row in tables["curve"] if row["panel"] == panel], panel) for panel in panels}


def summarise(tables: dict[str, Rows]) -> Rows:
    table = []
    for panel in dict.fromkeys(row["panel"] for row in tables["curve"]):
        rows = [row for row in tables["curve"] if row["panel"] == panel]
        for reading in dict.fromkeys(row["reading"] for row in rows):
            table += [{"data": panel, **row} for row in summarise_probes(rows, reading)]
    return table


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    panel = tables["curve"][0]["panel"]
    rows = [row for row in tables["curve"] if row["panel"] == panel]
    gains = [lcf - fm for lcf, fm in zip(clean_by_seed(rows, "LCF"), clean_by_seed(rows, "FM"), strict=True)]
    less = [fm - lcf for fm, lcf in zip(dips_by_seed(rows, "FM"), dips_by_seed(rows, "LCF"), strict=True)]
    return {
        "dip": judge_points(dips_by_seed(rows, "FM")),
        "dip_of_the_papers_probe": judge_points(dips_by_seed(rows, "FM", "paper")),
        "lcf_removes_the_dip": judge_points(less),
        "lcf_has_better_clean_features": judge_points(gains),
    }
