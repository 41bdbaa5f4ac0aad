"""LCF Figures 5 and 12: does LCF reach a Frechet distance sooner, and when do FM's features begin to degrade?

`make reproduce-lcf-fig5`, or `make reproduce-lcf-fig12`: for each dataset the distances over training epochs, and for
each method its probe curves, a line for each checkpoint and a panel for each reading.
"""

from __future__ import annotations

from statistics import mean

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    by_seed,
    denied,
    dips_by_seed,
    distance_in,
    distances_over_epochs,
    judge_points,
    judge_share,
    plot_distances,
    plot_probes,
    summarise_probes,
)


def measure(lines: Lines) -> dict[str, Rows]:
    probes = [
        {**row, "epoch": line.epochs(line.columns["step"])} for line in lines.of("probe") for row in line.rows("probe")
    ]
    return {"distances": distances_over_epochs(lines.of("distance")), "probe": probes}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    panels = dict.fromkeys(row["panel"] for row in tables["distances"])
    curves = dict.fromkeys((row["panel"], row["method"]) for row in tables["probe"])
    distances = {
        f"{panel}_distance": plot_distances([row for row in tables["distances"] if row["panel"] == panel], panel)
        for panel in panels
    }
    probes = {f"{panel}_probe_{method}": draw_probes(tables["probe"], panel, method) for panel, method in curves}
    return distances | probes


def draw_probes(rows: Rows, panel: str, method: str) -> Figure:
    """Figure 12 of one dataset and method: a curve per checkpoint."""
    own = [row for row in rows if (row["panel"], row["method"]) == (panel, method)]
    return plot_probes(by_epoch(own), f"{panel}, {method}", "training epochs")


def by_epoch(rows: Rows) -> Rows:
    """The rows of one method with the epochs of its checkpoint in the place of its name."""
    return [{**row, "method": f"{row['epoch']:.3g}"} for row in sorted(rows, key=lambda row: row["epoch"])]


def summarise(tables: dict[str, Rows]) -> Rows:
    table = []
    for panel, method in dict.fromkeys((row["panel"], row["method"]) for row in tables["probe"]):
        own = [row for row in tables["probe"] if (row["panel"], row["method"]) == (panel, method)]
        for reading in dict.fromkeys(row["reading"] for row in own):
            rows = summarise_probes(by_epoch(own), reading)
            table += [{"data": panel, **row, "epoch": row["method"], "method": method} for row in rows]
    return table


def saved_at(rows: Rows, steps: list[int]) -> list[float]:
    """Of each seed, by which share LCF's distance lies below FM's, averaged over `steps`."""
    distance = distance_in(rows[0])
    shares = []
    for step in steps:
        fm, lcf = (by_seed(rows, distance, method=method, step=step) for method in ("FM", "LCF"))
        shares.append([1 - lcf[seed] / fm[seed] for seed in fm])
    return [mean(seeds) for seeds in zip(*shares, strict=True)]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    panel = tables["distances"][0]["panel"]
    distances = [row for row in tables["distances"] if row["panel"] == panel]
    probe = by_epoch([row for row in tables["probe"] if (row["panel"], row["method"]) == (panel, "FM")])
    steps = sorted({row["step"] for row in distances})
    first, last = (dips_by_seed(probe, probe[place]["method"]) for place in (0, -1))
    return {
        "sooner": judge_share(saved_at(distances, steps)),
        "lower_in_the_end": judge_share(saved_at(distances, steps[-1:])),
        "no_dip_early": denied(judge_points(first)),
        "dip_emerges": judge_points([b - a for a, b in zip(first, last, strict=True)]),
    }
