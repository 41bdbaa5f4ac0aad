"""LCF Figure 10: does LCF keep classes in features of clean pixels, whatever the network predicts?

`make reproduce-lcf-fig10`. The paper's "v-loss, following Li and He" fits v-prediction and JiT's x-prediction with the
loss on the velocity: both are here. On a CPU Fashion-MNIST stands for ImageNet.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    clean_by_seed,
    distance_in,
    distance_name,
    distances_over_epochs,
    judge_difference,
    last_distances,
    plot_distances,
    plot_probes,
    published,
    shares_saved,
    summarise_probes,
)


def measure(lines: Lines) -> dict[str, Rows]:
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, "distances": distances_over_epochs(lines.of("distance"))}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {"probe": plot_probes(tables["probe"]), "distance": plot_distances(tables["distances"])}


def summarise(tables: dict[str, Rows]) -> Rows:
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    fids, distances = published("lcf", "fig10")["fid"], tables["distances"]
    table = []
    for method in dict.fromkeys(row["method"] for row in distances):
        ends = last_distances(distances, method)
        numbers = {key: probes.get(method, {}).get(key) for key in ("peak", "clean", "dip")}
        ours = {distance_name(distance_in(distances[0])): sum(ends.values()) / len(ends)}
        paper = {"paper (ImageNet, FID)": fids[method.partition(",")[0].lower()]}
        table.append({"method": method, **numbers, **ours, **paper})
    return table


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    fm, lcf = (last_distances(tables["distances"], name) for name in ("FM, v", "LCF, v"))
    return {
        "same_with_v_prediction": _gain(tables["probe"], "v"),
        "same_with_x_prediction": _gain(tables["probe"], "x"),
        "lower_distance": judge_difference(shares_saved(fm, lcf), 0.02, " %", 100),
    }


def _gain(probe: Rows, predicted: str) -> Judgement:
    """What LCF adds to the accuracy at the cleanest level, of one kind of prediction."""
    pairs = zip(clean_by_seed(probe, f"LCF, {predicted}"), clean_by_seed(probe, f"FM, {predicted}"), strict=False)
    return judge_difference([lcf - fm for lcf, fm in pairs], 0.01, " points", 100)
