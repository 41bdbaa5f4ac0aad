"""VD Figure 5: which scales of the velocity, s0 at noise and s1 at data, give which samples?

`python -m flowexp.reproduce vd/fig05`, with `run=RUN` for a run of your own: a map of the distances over
s0 and s1, and samples of the same noise at every cell.
"""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.image import imread

from flowexp.cli.recipes import Judgement, Lines, Rows, distance_in, distance_name, over_seeds
from flowexp.records.figures import draw_map

S0, S1 = "sampler.s0", "sampler.s1"


def measure(lines: Lines) -> dict[str, Rows | Figure]:
    return {"grid": [line.scores() for line in lines], "samples": draw_samples(lines)}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    distance = distance_in(tables["grid"][0])
    distances = {(row[S1], row[S0]): row[distance] for row in tables["grid"]}
    figure = Figure(figsize=(5.2, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    draw_map(axes, distances, distance_name(distance), min(distances.values()), max(distances.values()), numbers=True)
    axes.set(xlabel="s1, at data", ylabel="s0, at noise")
    return {"distances": figure}


def summarise(tables: dict[str, Rows]) -> Rows:
    return tables["grid"]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    distance = distance_in(tables["grid"][0])
    cells = over_seeds(tables["grid"], [S0, S1], [distance])
    best = min(cells, key=lambda row: row[distance])
    ends = {key: [pick(row[key] for row in cells) for pick in (min, max)] for key in (S0, S1)}
    outside = [key.removeprefix("sampler.") for key in (S0, S1) if best[key] in ends[key]]
    evidence = f"least at s0 = {best[S0]:g}, s1 = {best[S1]:g}" + (f", the end of {', '.join(outside)}" * bool(outside))
    return {"optimum_inside": Judgement("refuted" if outside else "supported", evidence)}


def draw_samples(lines: Lines) -> Figure:
    """The sample grid of each cell, s0 down and s1 across."""
    down, across = ([*dict.fromkeys(line.columns[key] for line in lines)] for key in (S0, S1))
    figure = Figure(figsize=(1.25 * len(across), 1.45 * len(down)), dpi=150, layout="constrained")
    panels = figure.subplots(len(down), len(across), squeeze=False)
    for line in lines:
        s0, s1 = line.columns[S0], line.columns[S1]
        axes = panels[down.index(s0)][across.index(s1)]
        axes.imshow(imread(line.picture("samples")))
        axes.set_title(f"s0 = {s0:g}, s1 = {s1:g}", fontsize="xx-small")
        axes.set_axis_off()
    return figure
