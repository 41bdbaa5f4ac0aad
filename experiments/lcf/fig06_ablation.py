"""LCF Figure 6: what T_min and each part of LCF's loss do to features of clean data and to samples.

`make reproduce-lcf-fig6`. Panels as the paper has them: a, c accuracy over t; b, d distance over epochs. The distance
at the end is measured with a jump from T_min to the data as well (`sampler.final_jump`). Panels e, f are ours: LCF with
feature vectors of length 1, as small networks are trained here, beside LCF as printed; so is the last, of features
against samples.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    by_seed,
    clean_by_seed,
    differences,
    dips_by_seed,
    distance_in,
    distance_name,
    judge_points,
    judge_share,
    last_distances,
    measure_features_and_samples,
    plot_distances,
    plot_probes,
    plot_trade_off,
    shares_saved,
    summarise_methods,
)


def measure(lines: Lines) -> dict[str, Rows]:
    t_min, losses, printed = (list(lines.settings[key]) for key in ("t_min", "losses", "printed"))
    groups = {"ab": t_min, "cd": losses, "ef": ["FM", *t_min, *printed] if printed else []}
    jumps = [{**line.columns, **line.scores()} for line in lines if line.part.startswith("jump")]
    members = [{"panels": panels, "method": name} for panels, names in groups.items() for name in names]
    return {**measure_features_and_samples(lines), "jumps": jumps, "panels": members}


def methods_of(tables: dict[str, Rows], panels: str) -> list[str]:
    """The lines of two panels, in the order of the yaml."""
    return [row["method"] for row in tables["panels"] if row["panels"] == panels]


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    figures = {}
    for panels, name in {"ab": "t_min", "cd": "loss", "ef": "printed"}.items():
        if methods_of(tables, panels):
            figures[f"{panels[0]}_{name}_probe"] = draw_probe(tables, panels)
            figures[f"{panels[1]}_{name}_distance"] = draw_distance(tables, panels)
    return figures | {"trade_off": draw_trade_off(tables)}


def draw_probe(tables: dict[str, Rows], panels: str) -> Figure:
    """Panel a, c or e: accuracy over t, in the order of the yaml, with the baselines."""
    baselines = [row for row in tables["probe"] if row["features"] != "network"]
    lines = [row for name in methods_of(tables, panels) for row in tables["probe"] if row["method"] == name]
    return plot_probes([row for row in lines if row["features"] == "network"] + baselines)


def draw_distance(tables: dict[str, Rows], panels: str) -> Figure:
    """Panel b, d or f: the distance over epochs."""
    lines = [row for name in methods_of(tables, panels) for row in tables["distances"] if row["method"] == name]
    return plot_distances(lines)


def draw_trade_off(tables: dict[str, Rows]) -> Figure:
    """Ours: accuracy of clean images over the distance at the end, of all lines, without and with the jump."""
    methods = [*dict.fromkeys(row["method"] for row in tables["probe"])]
    plain = {method: last_distances(tables["distances"], method) for method in methods}
    jumped = {method: with_jump(tables, method) for method in methods}
    samples = {"sampled to the end": plain, "a jump from T_min": jumped}
    return plot_trade_off(tables["probe"], samples, distance_name(distance_in(tables["distances"][0])))


def with_jump(tables: dict[str, Rows], method: str) -> dict[int, float]:
    """The distance of each seed with the last call of the network at T_min."""
    return by_seed(tables["jumps"], distance_in(tables["jumps"][0]), method=method)


def summarise(tables: dict[str, Rows]) -> Rows:
    jumped = {row["method"]: with_jump(tables, row["method"]) for row in summarise_methods(tables)}
    ends = {method: sum(seeds.values()) / len(seeds) if seeds else None for method, seeds in jumped.items()}
    return [row | {"with a jump from T_min": ends[row["method"]]} for row in summarise_methods(tables)]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    small, *_, large = methods_of(tables, "ab") * 2
    rivals = [name for name in methods_of(tables, "cd") if name != "LCF"]
    clean = {name: clean_by_seed(tables["probe"], name) for name in (*methods_of(tables, "ab"), *rivals)}
    ends = {name: last_distances(tables["distances"], name) for name in (*methods_of(tables, "ab"), *rivals)}
    jumped, others = with_jump(tables, "LCF"), [clean[name] for name in rivals]
    best_rival = [max(seed) for seed in zip(*others, strict=False)]
    lowest = {seed: min(ends[name][seed] for name in rivals) for seed in ends["LCF"]}
    costs = [ends[large][seed] / ends[small][seed] - 1 for seed in ends[small]]
    return {
        "larger_t_min_better_features": judge_points(differences(clean[large], clean[small])),
        "t_min_trades_generation": judge_share(costs),
        "cut_off_is_not_enough": judge_points(differences(clean["LCF"], clean.get("L_FM only", []))),
        "lcf_has_the_best_features": judge_points(differences(clean["LCF"], best_rival)),
        "lcf_has_the_best_samples": judge_share(shares_saved(lowest, ends["LCF"])),
        "jump_mends_the_distance": judge_share(shares_saved(ends["LCF"], jumped)),
        **judge_printed(tables, "LCF as printed", "printed"),
        **judge_printed(tables, "LCF as printed, T_min 20", "printed_20"),
    }


def judge_printed(tables: dict[str, Rows], method: str, key: str) -> dict[str, Judgement]:
    """LCF as printed beside FM, of the same seed: dip, clean features, distance."""
    probe, distances = tables["probe"], tables["distances"]
    less = differences(dips_by_seed(probe, "FM"), dips_by_seed(probe, method))
    gains = differences(clean_by_seed(probe, method), clean_by_seed(probe, "FM"))
    saved = shares_saved(last_distances(distances, "FM"), last_distances(distances, method))
    return {
        f"{key}_removes_the_dip": judge_points(less),
        f"{key}_has_better_clean_features": judge_points(gains),
        f"{key}_has_better_samples": judge_share(saved),
    }
