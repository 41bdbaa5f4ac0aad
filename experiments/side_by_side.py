"""FM, LCF and MAFM side by side; `make demo` is `python -m experiments.side_by_side budget=digits`.

Writes results/side_by_side/BUDGET: samples, probe_curve and noise_levels as PNG and CSV, numbers.md, protocol.json.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from experiments.recipes import markdown_table, measured_picture, measured_rows, read_recipe, run_of, write_protocol
from flowexp.records import atomic
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.run_folder import RunFolder
from flowexp.records.tables import read_csv, write_csv

T = "noise level t"
PANELS: dict[str, dict[str, Any]] = {
    "probe_curve": {"y": "accuracy", "log_x": True,
                    "names": {"t": f"{T} (linear below 0.01)", "accuracy": "probe accuracy"}},
    "noise_levels": {"y": ["loss", "velocity_ratio"],
                     "names": {"t": T, "loss": "velocity error, test images", "velocity_ratio": "|v| / |v*|"}},
}  # fmt: skip


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        runs = {
            label: run_of([*overrides, *recipe.settings.shared]) for label, overrides in recipe.settings.lines.items()
        }
        gather(runs, recipe.results)
        write_protocol(recipe, runs)
    for name, panel in PANELS.items():
        rows = read_csv(recipe.results / f"{name}.csv")
        save_figure(plot_curves(rows, "t", series="method", **panel), recipe.results / f"{name}.png")
    print(f"\n{(recipe.results / 'numbers.md').read_text()}")
    print(f"samples:      {', '.join(map(str, sorted(recipe.results.glob('samples_*.png'))))}")
    print(f"probe curve:  {recipe.results / 'probe_curve.png'} (and .csv)")
    print(f"numbers:      {recipe.results / 'numbers.md'}, with their protocol in protocol.json")


def gather(runs: Mapping[str, RunFolder], results: Path) -> None:
    """Copies samples, joins the tables of the runs, and puts their numbers side by side."""
    for label, run in runs.items():
        shutil.copyfile(measured_picture(run, "samples"), results / f"samples_{label.lower()}.png")
    probes = [{"method": label, **row} for label, run in runs.items() for row in measured_rows(run, "probe")]
    levels = [{"method": label, **row} for label, run in runs.items() for row in measured_rows(run, "noise_levels")]
    write_csv(results / "probe_curve.csv", probes)
    write_csv(results / "noise_levels.csv", [row for row in levels if row["split"] == "test"])
    numbers = [{"method": label, **run.summary()["scalars"]} for label, run in runs.items()]
    atomic.write_text(results / "numbers.md", markdown_table(numbers))


if __name__ == "__main__":
    main()
