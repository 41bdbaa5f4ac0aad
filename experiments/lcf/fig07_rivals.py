"""LCF Figure 7: do the Dispersive Loss and DDAE++ improve features or samples, and is LCF ahead of both?

`make reproduce-lcf-fig7`: accuracy over t, and distance over training epochs, of all lines. DDAE++ has no public code:
ours is an approximation (docs/ledger.md).
"""

from __future__ import annotations

from flowexp.cli.recipes import (
    Judgement,
    Rows,
    clean_by_seed,
    denied,
    differences,
    dips_by_seed,
    draw_features_and_samples,
    judge_points,
    judge_share,
    last_distances,
    measure_features_and_samples,
    peaks_by_seed,
    provided,
    shares_saved,
    summarise_methods,
)

RIVALS = ("Dispersive Loss", "DDAE++")

measure, draw, summarise = measure_features_and_samples, draw_features_and_samples, summarise_methods


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    probe, distances = tables["probe"], tables["distances"]
    fm, lcf = last_distances(distances, "FM"), last_distances(distances, "LCF")
    rivals = [last_distances(distances, name) for name in RIVALS]
    seeds = [seed for seed in fm if all(seed in rival for rival in rivals)]
    worse, better = ({seed: pick(rival[seed] for rival in rivals) for seed in seeds} for pick in (max, min))
    best = [max(pair) for pair in zip(*(clean_by_seed(probe, name) for name in RIVALS), strict=False)]
    peaks = {name: peaks_by_seed(probe, name) for name in ("FM", *RIVALS)}
    dips = {name: dips_by_seed(probe, name) for name in ("FM", "DDAE++")}
    kept = denied(judge_points(differences(dips["FM"], dips["DDAE++"])))
    return {
        "dispersive_no_better_features": denied(judge_points(differences(peaks["Dispersive Loss"], peaks["FM"]))),
        "ddaepp_better_peak": judge_points(differences(peaks["DDAE++"], peaks["FM"])),
        "ddaepp_keeps_the_dip": provided(judge_points(dips["FM"]), "dip of FM", kept),
        "rivals_better_samples": judge_share(shares_saved(fm, worse)),
        "lcf_best_features": judge_points(differences(clean_by_seed(probe, "LCF"), best)),
        "lcf_sooner": judge_share(shares_saved(better, lcf)),
    }
