"""VD Figure 5: which scales of the velocity, s0 at noise and s1 at data, give which samples?

`python -m flowexp.reproduce vd/fig05`, with `run=RUN` for a run of your own: a map of the distances over
s0 and s1, averaged over seeds, and samples of the same noise at every cell, those of the first seed.
"""

from __future__ import annotations

from dataclasses import replace

from matplotlib.figure import Figure
from matplotlib.image import imread

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    compare_scores,
    denied,
    distance_in,
    distance_name,
    gains,
    judge_share,
    over_seeds,
)
from flowexp.records.figures import draw_map

S0, S1 = "sampler.s0", "sampler.s1"
PLAIN = {S0: 1.0, S1: 1.0}  # no SSC


def measure(lines: Lines) -> dict[str, Rows | Figure]:
    return {"grid": [line.scores() for line in lines], "samples": draw_samples(lines)}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    cells, distance = averaged(tables)
    distances = {(row[S1], row[S0]): row[distance] for row in cells}
    wide = max(5.2, 1.6 + 0.55 * len({row[S1] for row in cells}))  # a number fits into its cell
    figure = Figure(figsize=(wide, 4), dpi=150, layout="constrained")
    axes = figure.subplots()
    draw_map(axes, distances, distance_name(distance), min(distances.values()), max(distances.values()), numbers=True)
    axes.set(xlabel="s1, at data", ylabel="s0, at noise")
    return {"distances": figure}


def averaged(tables: dict[str, Rows]) -> tuple[Rows, str]:
    """The grid averaged over seeds, and the column of its distance."""
    distance = distance_in(tables["grid"][0])
    return over_seeds(tables["grid"], [S0, S1], [distance]), distance


def summarise(tables: dict[str, Rows]) -> Rows:
    return compare_scores(tables["grid"], [S0, S1], PLAIN)


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    cells, distance = averaged(tables)

    def best(**where: float) -> dict[str, float]:
        among = [row for row in cells if all(row[f"sampler.{key}"] == scale for key, scale in where.items())]
        least = min(among, key=lambda row: row[distance])
        return {S0: least[S0], S1: least[S1]}

    def below(cell: dict[str, float], other: dict[str, float]) -> Judgement:
        judgement = judge_share(gains(tables["grid"], other, cell))
        return replace(judgement, evidence=f"{judgement.evidence}: {told(cell)} against {told(other)}")

    least = best()
    return {
        "optimum_inside": inside(least, cells),
        "s0_matters_more_than_s1": below(best(s1=1.0), best(s0=1.0)),
        "early_alone_is_best": denied(below(least, {S0: 1.1, S1: 1.0})),
    }


def inside(least: dict[str, float], cells: Rows) -> Judgement:
    """Whether the grid goes on beyond its best cell on every side."""
    ends = {key: [pick(row[key] for row in cells) for pick in (min, max)] for key in (S0, S1)}
    outside = [key.removeprefix("sampler.") for key in (S0, S1) if least[key] in ends[key]]
    evidence = f"least at {told(least)}" + (f", the end of {', '.join(outside)}" * bool(outside))
    return Judgement("refuted" if outside else "supported", evidence)


def told(cell: dict[str, float]) -> str:
    return f"s0 = {cell[S0]:g}, s1 = {cell[S1]:g}"


def draw_samples(lines: Lines) -> Figure:
    """The sample grid of each cell, s0 down and s1 across, of the first seed."""
    down, across = (sorted({line.columns[key] for line in lines}) for key in (S0, S1))
    figure = Figure(figsize=(1.25 * len(across), 1.45 * len(down)), dpi=150, layout="constrained")
    panels = figure.subplots(len(down), len(across), squeeze=False)
    first = lines[0].columns.get("seed")
    for line in (line for line in lines if line.columns.get("seed") == first):
        s0, s1 = line.columns[S0], line.columns[S1]
        axes = panels[down.index(s0)][across.index(s1)]
        axes.imshow(imread(line.picture("samples")))
        axes.set_title(f"s0 = {s0:g}, s1 = {s1:g}", fontsize="xx-small")
    for axes in panels.flat:  # also where nothing was measured
        axes.set_axis_off()
    return figure
