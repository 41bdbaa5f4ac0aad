"""LCF Figure 10: does LCF keep classes in features of clean pixels, whatever the network predicts?

`make reproduce-lcf-fig10`. The paper's "v-loss, following Li and He" fits v-prediction and JiT's x-prediction with the
loss on the velocity: both are here. On a CPU Fashion-MNIST stands for ImageNet.
"""

from __future__ import annotations

from collections.abc import Iterable

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Printed,
    Rows,
    clean_by_seed,
    differences,
    draw_features_and_samples,
    judge_points,
    judge_share,
    last_distances,
    measure_features_and_samples,
    plot_ends,
    published,
    shares_saved,
    summarise_methods,
)

measure = measure_features_and_samples


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    """As for other figures; at the end LCF beside FM of the same prediction."""
    rows = []
    for row in tables["distances"]:
        method, _, prediction = row["method"].partition(", ")
        rows.append({**row, "method": method, "prediction": prediction})
    paper = printed((row["method"], row["prediction"]) for row in rows)
    end = plot_ends(rows, {"method": "FM"}, paper, ("method", "prediction"))
    return {**draw_features_and_samples(tables), "distance_at_the_end": end}


def printed(cells: Iterable[tuple[str, ...]]) -> Printed:
    """The paper's FIDs of FM and LCF, whatever they predict: it has one of each."""
    fids = published("lcf", "fig10")["fid"]
    return Printed({cell: fids[cell[0].partition(",")[0].lower()] for cell in cells}, "ImageNet")


def summarise(tables: dict[str, Rows]) -> Rows:
    return summarise_methods(tables, printed((row["method"],) for row in tables["distances"]))


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    fm, lcf = (last_distances(tables["distances"], name) for name in ("FM, v", "LCF, v"))
    return {
        "same_with_v_prediction": _gain(tables["probe"], "v"),
        "same_with_x_prediction": _gain(tables["probe"], "x"),
        "lower_distance": judge_share(shares_saved(fm, lcf)),
    }


def _gain(probe: Rows, predicted: str) -> Judgement:
    """What LCF adds to the accuracy at the cleanest level, of one kind of prediction."""
    return judge_points(differences(*(clean_by_seed(probe, f"{method}, {predicted}") for method in ("LCF", "FM"))))
