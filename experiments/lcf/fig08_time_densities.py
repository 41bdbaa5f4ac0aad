"""LCF Figure 8: can another law of the training time mend features of clean data, without a price in samples?

`make reproduce-lcf-fig8`: accuracy over t for three logit-normal laws beside the uniform one, their densities, and
their distances beside the paper's FIDs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Printed,
    Rows,
    clean_by_seed,
    differences,
    dips_by_seed,
    judge_points,
    judge_share,
    last_distances,
    measure_features_and_samples,
    plot_ends,
    plot_probes,
    provided,
    published,
    shares_saved,
    summarise_methods,
)
from flowexp.flow.time_samplers import create_time_sampler
from flowexp.records.figures import plot_curves

UNIFORM = "uniform"
LAWS = ("m = -0.5", "m = 0", "m = 0.5")


def measure(lines: Lines) -> dict[str, Rows]:
    laws = densities(lines.settings.laws, lines.settings.num_points)
    return {**measure_features_and_samples(lines), "densities": laws}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    rows = [{**row, "T": 1000 * row["t"]} for row in tables["densities"]]
    names = {"T": "time step T of 1000", "density": "density of the training time", "law": ""}
    return {
        "probe": plot_probes(tables["probe"]),
        "densities": plot_curves(rows, "T", "density", "law", names),
        "distance_at_the_end": plot_ends(tables["distances"], {"method": LAWS[0]}, printed()),
    }


def printed() -> Printed:
    fids = published("lcf", "fig8")["fid"]
    return Printed({(key.replace("=", " = "),): fid for key, fid in fids.items()}, "CIFAR-10")


def summarise(tables: dict[str, Rows]) -> Rows:
    return summarise_methods(tables, printed())


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    probe, (low, *others) = tables["probe"], (last_distances(tables["distances"], law) for law in LAWS)
    rival = {seed: min(other[seed] for other in others) for seed in low if all(seed in other for other in others)}
    smallest = [min(seed) for seed in zip(*(dips_by_seed(probe, law) for law in LAWS), strict=False)]
    clean = {law: clean_by_seed(probe, law) for law in (UNIFORM, *LAWS)}
    distances = {law: last_distances(tables["distances"], law) for law in (UNIFORM, "m = 0")}
    return {
        "all_degrade": provided(
            judge_points(dips_by_seed(probe, UNIFORM)), "dip with uniform times", judge_points(smallest)
        ),
        "low_noise_best_samples": judge_share(shares_saved(rival, low)),
        "trade_off": judge_points(differences(clean["m = 0.5"], clean["m = -0.5"])),
        "logit_normal_better_clean_features": judge_points(differences(clean["m = 0"], clean[UNIFORM])),
        "logit_normal_better_samples": judge_share(shares_saved(distances[UNIFORM], distances["m = 0"])),
    }


def densities(laws: Mapping[str, Any], num_points: int) -> Rows:
    """Every law's density at `num_points` noise levels inside (0, 1)."""
    t = (torch.arange(num_points, dtype=torch.float64) + 0.5) / num_points
    rows = []
    for law, options in laws.items():
        density = create_time_sampler(**options).density(t)
        rows += [{"law": law, "t": at, "density": of} for at, of in zip(t.tolist(), density.tolist(), strict=True)]
    return rows
