"""Ours: does a cut-off alone, no regression below T_min and no contrast, remove the dip and better the samples?

`python -m flowexp.reproduce lcf/cut_off_alone`: the cut-off of LCF, and a soft one, logit-normal times. Asked of other
seeds than those of LCF Figures 6 and 8, which showed what either does.
"""

from __future__ import annotations

from matplotlib.figure import Figure

from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    by_seed,
    clean_by_seed,
    compare_scores,
    denied,
    differences,
    dips_by_seed,
    distance_in,
    distance_name,
    judge_points,
    judge_share,
    measure_scores,
    plot_probes,
    plot_trade_off,
    shares_saved,
    summarise_probes,
)

KEYS = ("method", "last step")  # what tells samples apart
METHODS = ("FM", "L_FM only", "logit-normal")
INTEGRATED, JUMP = "integrated", "a jump from T_min"


def measure(lines: Lines) -> dict[str, Rows]:
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, **measure_scores(lines.of("samples"))}


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    name = distance_name(distance_in(tables["scores"][0]))
    return {
        "probe": plot_probes(tables["probe"]),
        "trade_off": plot_trade_off(tables["probe"], samples_of(tables), name),
    }


def summarise(tables: dict[str, Rows]) -> Rows:
    """A row for each way of sampling, with the method's probe curve in numbers."""
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    columns = dict.fromkeys(column for row in probes.values() for column in row if column != "method")
    return [
        row | {column: probes.get(row["method"], {}).get(column) for column in columns}
        for row in compare_scores(tables["scores"], KEYS, {"method": "FM"})
    ]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    dip, clean = ({method: of(tables["probe"], method) for method in METHODS} for of in (dips_by_seed, clean_by_seed))
    integrated, jumped = samples_of(tables).values()
    return {
        "cut_off_removes_the_dip": judge_points(differences(dip["FM"], dip["L_FM only"])),
        "cut_off_has_better_clean_features": judge_points(differences(clean["L_FM only"], clean["FM"])),
        "cut_off_has_better_samples": judge_share(shares_saved(jumped["FM"], jumped["L_FM only"])),
        "cut_off_costs_samples_without_a_jump": judge_share(shares_saved(integrated["L_FM only"], integrated["FM"])),
        "logit_normal_has_better_clean_features": judge_points(differences(clean["logit-normal"], clean["FM"])),
        "logit_normal_has_better_samples": judge_share(shares_saved(integrated["FM"], integrated["logit-normal"])),
        "logit_normal_reads_as_the_cut_off": denied(
            judge_points(differences(clean["L_FM only"], clean["logit-normal"]))
        ),
    }


def samples_of(tables: dict[str, Rows]) -> dict[str, dict[str, dict[int, float]]]:
    """The distance of each seed, by the last step of sampling and by method."""
    rows = tables["scores"]
    return {
        last_step: {
            method: by_seed(rows, distance_in(rows[0]), **{"method": method, "last step": last_step})
            for method in METHODS
        }
        for last_step in (INTEGRATED, JUMP)
    }
