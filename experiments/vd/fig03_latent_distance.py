"""VD Figure 3 and Table 11: how far are a sampler's states from the data on their way, with SSC and without?

`python -m flowexp.reproduce vd/fig3`, with `run=RUN` for a run of your own. The Frechet latent distance (FLD) of FM, of
SSC ("x % closer") and of two controls, a constant and a late scale, beside that of the exact marginal at the same time:
the distance falls along any path, and one who is merely ahead of the schedule is closer.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import Judgement, Lines, Rows, gains, judge_difference, over_seeds, published
from flowexp.records.figures import plot_curves

PLAIN, CORRECTED = "FM", "SSC"
MATTERS = 0.02
EXACT = "exact marginal"


def measure(lines: Lines) -> dict[str, Rows]:
    rows = [row for line in lines for row in line.rows("integration_lag")]
    return {"distance": [{"progress": 1 - row["t"]} | row for row in rows]}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    networks = dict.fromkeys(row["method"] for row in tables["distance"])
    return {
        f"distance_{''.join(filter(str.isalnum, name))}": draw_network(
            [row for row in tables["distance"] if row["method"] == name], name
        )
        for name in networks
    }


def draw_network(rows: Rows, title: str) -> Figure:
    """The FLD of every scale and of the exact marginal over sampling, and SSC's share "closer"; bands are of seeds."""
    columns = ["SSC", "progress"]
    exact = over_seeds([row for row in rows if row["SSC"] == PLAIN], columns, ["fld_marginal"])
    points = [
        {"progress": row["progress"], "line": row["SSC"], "FLD": row["fld"], "low": row["fld_low"],
         "high": row["fld_high"]}
        for row in over_seeds(rows, columns, ["fld"])
    ]  # fmt: skip
    points += [{"progress": row["progress"], "line": EXACT, "FLD": row["fld_marginal"],
                "low": row["fld_marginal_low"], "high": row["fld_marginal_high"]} for row in exact]  # fmt: skip
    others = [name for name in dict.fromkeys(row["line"] for row in points) if name != PLAIN]
    points += [
        {"progress": time, "line": name, "closer": share, "low": share, "high": share}
        for name in others
        for time in dict.fromkeys(row["progress"] for row in rows)
        for share in [closer(rows, name, time)]
    ]
    names = {"progress": "progress of sampling, VD's t (0 = noise)", "FLD": "Fréchet latent distance", "line": "",
             "closer": "closer than FM, %"}  # fmt: skip
    return plot_curves(points, "progress", ["FLD", "closer"], "line", names, title, band=("low", "high"))


def closer(rows: Rows, scale: str, progress: float) -> float:
    """By how many percent a scale's states, or the exact marginal's samples, are closer than FM's: mean over seeds."""
    shares = _gains(rows, PLAIN, scale, progress)
    return 100 * sum(shares) / len(shares)


def _gains(rows: Rows, plain: str, other: str, progress: float) -> list[float]:
    """Of each seed, the share by which `other` lowers the FLD of `plain` at one time; either may be the exact one's."""
    table = [{**row, "of": row["SSC"], "value": row["fld"]} for row in rows]
    table += [{**row, "of": EXACT, "value": row["fld_marginal"]} for row in rows if row["SSC"] == PLAIN]
    return gains(table, {"of": plain, "progress": progress}, {"of": other, "progress": progress}, "value")


def summarise(tables: dict[str, Rows]) -> Rows:
    """Every time with the FLD of all, SSC's percentage, and below it VD Table 11 (its times are not legible)."""
    table: Rows = []
    for name in dict.fromkeys(row["method"] for row in tables["distance"]):
        rows = [row for row in tables["distance"] if row["method"] == name]
        for progress in sorted({row["progress"] for row in rows}):
            at = over_seeds([row for row in rows if row["progress"] == progress], ["SSC"], ["fld", "fld_marginal"])
            exact = next(row["fld_marginal"] for row in at if row["SSC"] == PLAIN)
            scales = {f"FLD {row['SSC']}": row["fld"] for row in at}
            share = closer(rows, CORRECTED, progress)
            table.append({"network": name, "VD's t": progress, **scales, "FLD exact": exact, "SSC closer, %": share})
    return table + [_paper_row(table[0], *pair) for pair in _pairs()]


def _pairs() -> list[tuple[str, int, float, float]]:
    rows = {(row["model"], row["method"]): row["fld"] for row in published("vd", "table11")}
    models = dict.fromkeys(model for model, _ in rows)
    return [
        (model, place + 1, plain, corrected)
        for model in models
        for place, (plain, corrected) in enumerate(zip(rows[model, "FM"], rows[model, "SSC"], strict=True))
    ]


def _paper_row(like: dict[str, object], model: str, place: int, plain: float, corrected: float) -> dict[str, object]:
    numbers = {"FLD FM": plain, "FLD SSC": corrected, "SSC closer, %": 100 * (1 - corrected / plain)}
    return dict.fromkeys(like) | {"network": f"paper, {model}", "VD's t": f"time {place} of 5"} | numbers


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["distance"]
    rows = [row for row in rows if row["method"] == rows[0]["method"]]
    times = sorted({row["progress"] for row in rows})
    inner = [time for time in times[1:-1]] or times
    best = max(inner, key=lambda time: closer(rows, CORRECTED, time))
    middle = min(times, key=lambda time: abs(time - 0.5))

    def judged(plain: str, other: str, time: float, matters: float) -> Judgement:
        return judge_difference(_gains(rows, plain, other, time), matters, f" % at VD's t = {time:.2g}", 100)

    return {
        "closer_in_mid_path": judged(PLAIN, CORRECTED, best, MATTERS),
        "ssc_is_ahead_of_schedule": judged(EXACT, CORRECTED, best, 0.01),
        "controls_do_as_well": judged(PLAIN, "constant 1.05", middle, MATTERS),
        "closer_at_the_end": judged(PLAIN, CORRECTED, times[-1], MATTERS),
    }
