"""LCF Figure 7: do the Dispersive Loss and DDAE++ improve features or samples, and is LCF ahead of both?

`make reproduce-lcf-fig7`: accuracy over t, and distance over training epochs, of all lines. DDAE++ has no public code:
ours is an approximation (docs/ledger.md).
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
    shares_saved,
    summarise_probes,
)

RIVALS = ("Dispersive Loss", "DDAE++")


def measure(lines: Lines) -> dict[str, Rows]:
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, "distances": distances_over_epochs(lines.of("distance"))}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"probe": plot_probes(tables["probe"]), "distance": plot_distances(tables["distances"])}


def summarise(tables: dict[str, Rows]) -> Rows:
    rows = summarise_probes(tables["probe"])
    return [{**row, **distance_beside(tables["distances"], row["method"], None)} for row in rows]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    probe, distances = tables["probe"], tables["distances"]
    fm, lcf = last_distances(distances, "FM"), last_distances(distances, "LCF")
    rivals = [last_distances(distances, name) for name in RIVALS]
    seeds = [seed for seed in fm if all(seed in rival for rival in rivals)]
    worse, better = ({seed: pick(rival[seed] for rival in rivals) for seed in seeds} for pick in (max, min))
    best = [max(pair) for pair in zip(*(clean_by_seed(probe, name) for name in RIVALS), strict=False)]
    peaks = {name: peaks_by_seed(probe, name) for name in ("FM", *RIVALS)}
    dips = (dips_by_seed(probe, name) for name in ("FM", "DDAE++"))
    return {
        "dispersive_no_better_features": judge_absence(
            _less(peaks["Dispersive Loss"], peaks["FM"]), 0.01, " points", 100
        ),
        "ddaepp_better_peak": judge_difference(_less(peaks["DDAE++"], peaks["FM"]), 0.01, " points", 100),
        "ddaepp_keeps_the_dip": judge_absence(_less(*dips), 0.01, " points", 100),
        "rivals_better_samples": judge_difference(shares_saved(fm, worse), 0.02, " %", 100),
        "lcf_best_features": judge_difference(_less(clean_by_seed(probe, "LCF"), best), 0.01, " points", 100),
        "lcf_sooner": judge_difference(shares_saved(better, lcf), 0.02, " %", 100),
    }


def _less(first: list[float], second: list[float]) -> list[float]:
    return [a - b for a, b in zip(first, second, strict=False)]
