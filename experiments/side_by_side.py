"""FM, LCF and MAFM side by side: samples, probe curve, and errors and norms of the velocity over the noise level.

`make demo` is `python -m flowexp.reproduce side_by_side budget=digits`.
"""

from __future__ import annotations

from pathlib import Path

from matplotlib.figure import Figure

from flowexp.cli.recipes import Lines, Rows, baselines_in, distance_in, network_rows
from flowexp.records.figures import plot_curves

T = "noise level t"


def measure(lines: Lines) -> dict[str, Rows | Path]:
    levels = [row for line in lines for row in line.rows("noise_levels")]
    return {
        "probe_curve": [row for line in lines for row in line.rows("probe")],
        "noise_levels": [row for row in levels if row["split"] == "test"],
        "numbers": [line.scores() for line in lines],
        **{f"samples_{line.columns['method'].lower()}": line.picture("samples") for line in lines},
    }


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    probe = {"t": f"{T} (linear below 0.01)", "accuracy": "accuracy of a converged probe", "method": ""}
    curves, across = network_rows(tables["probe_curve"]), {"accuracy": baselines_in(tables["probe_curve"])}
    velocity = {"t": T, "loss": "velocity error, test images", "velocity_ratio": "|v| / |v*|"}
    return {
        "probe_curve": plot_curves(curves, "t", "accuracy", "method", probe, log_x=True, across=across),
        "noise_levels": plot_curves(
            tables["noise_levels"], "t", ["loss", "velocity_ratio"], series="method", names=velocity
        ),
    }


def summarise(tables: dict[str, Rows]) -> Rows:
    """The distance, and what a converged probe reads off features beside the same probe on pixels."""
    table = []
    for row in tables["numbers"]:
        numbers = {key: row[key] for key in ("method", distance_in(row))}
        numbers |= {"best probe": row["probe/peak"], "at clean data": row["probe/at_clean"], "dip": row["probe/dip"]}
        table.append(
            numbers | {f"probe on {name}": share for name, share in baselines_in(tables["probe_curve"]).items()}
        )
    return table
