"""LCF Figure 10: does LCF keep classes in features of clean pixels, whatever the network predicts?

`make reproduce-lcf-fig10`. The paper's "v-loss, following Li and He" fits v-prediction and JiT's x-prediction with the
loss on the velocity: both are here. On a CPU Fashion-MNIST stands for ImageNet.
"""

from __future__ import annotations

from flowexp.cli.recipes import (
    Judgement,
    Rows,
    clean_by_seed,
    differences,
    draw_features_and_samples,
    judge_points,
    judge_share,
    last_distances,
    measure_features_and_samples,
    published,
    shares_saved,
    summarise_methods,
)

measure, draw = measure_features_and_samples, draw_features_and_samples


def summarise(tables: dict[str, Rows]) -> Rows:
    fids, methods = published("lcf", "fig10")["fid"], dict.fromkeys(row["method"] for row in tables["distances"])
    return summarise_methods(tables, {each: fids[each.partition(",")[0].lower()] for each in methods}, "ImageNet")


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
