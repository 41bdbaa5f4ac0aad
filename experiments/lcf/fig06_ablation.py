"""LCF Figure 6: what T_min and each part of LCF's loss do to features of clean data and to samples.

`make reproduce-lcf-fig6`. Panels as the paper has them: a, c accuracy over t; b, d distance over epochs. The distance
at the end is measured with a jump from T_min to the data as well (`sampler.final_jump`).
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    by_seed,
    clean_by_seed,
    distance_in,
    distance_name,
    distances_over_epochs,
    judge_difference,
    last_distances,
    plot_distances,
    plot_probes,
    summarise_probes,
)


def measure(lines: Lines) -> dict[str, Rows]:
    groups = {"t_min": "ab", "losses": "cd"}
    jumps = [{**line.columns, **line.scores()} for line in lines if line.part.startswith("jump")]
    members = [
        {"panels": panels, "method": str(name)} for key, panels in groups.items() for name in lines.settings[key]
    ]
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, "distances": distances_over_epochs(lines.of("distance")), "jumps": jumps, "panels": members}


def methods_of(tables: dict[str, Rows], panels: str) -> list[str]:
    """The lines of two panels, in the order of the yaml."""
    return [row["method"] for row in tables["panels"] if row["panels"] == panels]


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    return {
        "a_t_min_probe": draw_probe(tables, "ab"),
        "b_t_min_distance": draw_distance(tables, "ab"),
        "c_loss_probe": draw_probe(tables, "cd"),
        "d_loss_distance": draw_distance(tables, "cd"),
    }


def draw_probe(tables: dict[str, Rows], panels: str) -> Figure:
    """Panel a or c: accuracy over t, in the order of the yaml, with the baselines."""
    baselines = [row for row in tables["probe"] if row["features"] != "network"]
    lines = [row for name in methods_of(tables, panels) for row in tables["probe"] if row["method"] == name]
    return plot_probes([row for row in lines if row["features"] == "network"] + baselines)


def draw_distance(tables: dict[str, Rows], panels: str) -> Figure:
    """Panel b or d: the distance over epochs."""
    lines = [row for name in methods_of(tables, panels) for row in tables["distances"] if row["method"] == name]
    return plot_distances(lines)


def with_jump(tables: dict[str, Rows], method: str) -> dict[int, float]:
    """The distance of each seed with the last call of the network at T_min."""
    return by_seed(tables["jumps"], distance_in(tables["jumps"][0]), method=method)


def summarise(tables: dict[str, Rows]) -> Rows:
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    distance, table = distance_name(distance_in(tables["distances"][0])), []
    for method in dict.fromkeys(row["method"] for row in tables["distances"]):
        plain, jumped = last_distances(tables["distances"], method), with_jump(tables, method)
        row = {key: probes.get(method, {}).get(key) for key in ("peak", "clean", "dip")}
        row |= {distance: _mean(plain), "with a jump from T_min": _mean(jumped)}
        table.append({"method": method, **row})
    return table


def _mean(values: dict[int, float]) -> float | None:
    return sum(values.values()) / len(values) if values else None


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    small, *_, large = methods_of(tables, "ab") * 2
    rivals = [name for name in methods_of(tables, "cd") if name != "LCF"]
    clean = {name: clean_by_seed(tables["probe"], name) for name in (*methods_of(tables, "ab"), *rivals)}
    ends = {name: last_distances(tables["distances"], name) for name in (*methods_of(tables, "ab"), *rivals)}
    jumped, others = with_jump(tables, "LCF"), [clean[name] for name in rivals]
    best_rival = [max(seed) for seed in zip(*others, strict=False)]
    lowest = {seed: min(ends[name][seed] for name in rivals) for seed in ends["LCF"]}
    jump_gain = [1 - jumped[seed] / ends["LCF"][seed] for seed in jumped]
    costs = [ends[large][seed] / ends[small][seed] - 1 for seed in ends[small]]
    return {
        "larger_t_min_better_features": _points(clean[large], clean[small]),
        "t_min_trades_generation": judge_difference(costs, 0.02, " %", 100),
        "cut_off_is_not_enough": _points(clean["LCF"], clean.get("L_FM only", [])),
        "lcf_has_the_best_features": _points(clean["LCF"], best_rival),
        "lcf_has_the_best_samples": judge_difference(
            [1 - ends["LCF"][seed] / lowest[seed] for seed in lowest], 0.02, " %", 100
        ),
        "jump_mends_the_distance": judge_difference(jump_gain, 0.02, " %", 100),
    }


def _points(higher: list[float], lower: list[float]) -> Judgement:
    return judge_difference([a - b for a, b in zip(higher, lower, strict=False)], 0.01, " points", 100)
