"""LCF Figure 11: do Explicit Flow Matching and x-prediction keep classes in features of clean data, and their samples?

`make reproduce-lcf-fig11`: accuracy over t of all lines, and their distances beside the paper's FIDs.
"""

from __future__ import annotations

from collections.abc import Callable

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Printed,
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
    plot_ends,
    provided,
    published,
    shares_saved,
    summarise_methods,
)

PRINTED = {"FM": "fm", "LCF": "lcf", "ExFM": "exfm", "x-prediction": "x_prediction"}  # keys of the paper's FIDs


measure = measure_features_and_samples


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    end = plot_ends(tables["distances"], {"method": "FM"}, printed())
    return {**draw_features_and_samples(tables), "distance_at_the_end": end}


def printed() -> Printed:
    fids = published("lcf", "fig11")["fid"]
    return Printed({(method,): fids[key] for method, key in PRINTED.items()}, "CIFAR-10")


def summarise(tables: dict[str, Rows]) -> Rows:
    return summarise_methods(tables, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    probe = tables["probe"]
    ends = {name: last_distances(tables["distances"], name) for name in PRINTED}
    others = [ends[name] for name in PRINTED if name != "LCF"]
    lowest = {seed: min(other[seed] for other in others) for seed in ends["FM"] if all(seed in o for o in others)}
    dips = {name: dips_by_seed(probe, name) for name in ("FM", "ExFM")}
    kept = denied(judge_points(differences(dips["FM"], dips["ExFM"])))
    weaker = [
        min(pair) for pair in zip(_less_than_fm(probe, peaks_by_seed), _less_than_fm(probe, clean_by_seed), strict=True)
    ]
    return {
        "exfm_keeps_the_dip": provided(judge_points(dips["FM"]), "dip of FM", kept),
        "exfm_worse_samples": judge_share([-share for share in shares_saved(ends["FM"], ends["ExFM"])]),
        "x_weaker_features": judge_points(weaker),
        "x_worse_samples": judge_share(shares_saved(ends["x-prediction"], ends["FM"])),
        "lcf_best_of_all": judge_share(shares_saved(lowest, ends["LCF"])),
    }


def _less_than_fm(probe: Rows, number: Callable[[Rows, str], list[float]]) -> list[float]:
    """By how much x-prediction lies below FM, of each seed, in one number of the curve."""
    return differences(number(probe, "FM"), number(probe, "x-prediction"))
