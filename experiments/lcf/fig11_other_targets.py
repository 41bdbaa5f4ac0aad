"""LCF Figure 11: do Explicit Flow Matching and x-prediction keep classes in features of clean data, and their samples?

`make reproduce-lcf-fig11`: accuracy over t of all lines, and their distances beside the paper's FIDs.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    clean_by_seed,
    dips_by_seed,
    distance_beside,
    distances_over_epochs,
    judge_absence,
    judge_difference,
    last_distances,
    peaks_by_seed,
    plot_distances,
    plot_probes,
    published,
    shares_saved,
    summarise_probes,
)

PRINTED = {"FM": "fm", "LCF": "lcf", "ExFM": "exfm", "x-prediction": "x_prediction"}  # keys of the paper's FIDs


def measure(lines: Lines) -> dict[str, Rows]:
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, "distances": distances_over_epochs(lines.of("distance"))}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"probe": plot_probes(tables["probe"]), "distance": plot_distances(tables["distances"])}


def summarise(tables: dict[str, Rows]) -> Rows:
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    fids, distances = published("lcf", "fig11")["fid"], tables["distances"]
    return [
        {
            "method": method,
            **{key: probes.get(method, {}).get(key) for key in ("peak", "clean", "dip")},
            **distance_beside(distances, method, fids[PRINTED[method]]),
        }
        for method in dict.fromkeys(row["method"] for row in distances)
    ]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    probe = tables["probe"]
    ends = {name: last_distances(tables["distances"], name) for name in PRINTED}
    others = [ends[name] for name in PRINTED if name != "LCF"]
    lowest = {seed: min(other[seed] for other in others) for seed in ends["FM"] if all(seed in o for o in others)}
    dips = (dips_by_seed(probe, name) for name in ("FM", "ExFM"))
    weaker = [
        min(pair) for pair in zip(_less_than_fm(probe, peaks_by_seed), _less_than_fm(probe, clean_by_seed), strict=True)
    ]
    return {
        "exfm_keeps_the_dip": judge_absence([a - b for a, b in zip(*dips, strict=False)], 0.01, " points", 100),
        "exfm_worse_samples": judge_difference(
            [-share for share in shares_saved(ends["FM"], ends["ExFM"])], 0.02, " %", 100
        ),
        "x_weaker_features": judge_difference(weaker, 0.01, " points", 100),
        "x_worse_samples": judge_difference(shares_saved(ends["x-prediction"], ends["FM"]), 0.02, " %", 100),
        "lcf_best_of_all": judge_difference(shares_saved(lowest, ends["LCF"]), 0.02, " %", 100),
    }


def _less_than_fm(probe: Rows, number: object) -> list[float]:
    """By how much x-prediction lies below FM, of each seed, in one number of the curve."""
    assert callable(number)
    return [fm - x for fm, x in zip(number(probe, "FM"), number(probe, "x-prediction"), strict=False)]
