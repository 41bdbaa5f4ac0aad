"""LCF Figure 4: does LCF keep the features of nearly clean images readable where FM loses them?

`make reproduce-fig4 BUDGET=smoke|cpu|gpu|paper`, with `MINUTES=20` for at most so many;
`python -m experiments.lcf.fig04_probe_curve redraw=true` draws again.
Writes results/lcf/fig04_probe_curve/BUDGET: a figure per dataset, curve.csv, table.md and protocol.json.
"""

from __future__ import annotations

import sys
import time
from typing import Any

from experiments.lcf.dips import dips
from experiments.minutes import fit_to_minutes
from experiments.recipes import Recipe, markdown_table, measured_rows, panel_lines, read_recipe, run_of, write_protocol
from flowexp.records import atomic
from flowexp.records.figures import plot_curves, save_figure
from flowexp.records.tables import read_csv, write_csv


def main() -> None:
    recipe, began = read_recipe(__file__, sys.argv[1:], takes=("redraw", "minutes")), time.perf_counter()
    recipe.results.mkdir(parents=True, exist_ok=True)
    if not recipe.redraw:
        measure(recipe)
    rows = read_csv(recipe.results / "curve.csv")
    draw(recipe, rows)
    atomic.write_text(recipe.results / "table.md", markdown_table(dips(rows, {"panel": "data", "method": "method"})))
    print(f"\n{(recipe.results / 'table.md').read_text()}")
    minutes = (time.perf_counter() - began) / 60
    print(f"figure, table, CSV and protocol: {recipe.results} (after {minutes:.1f} minutes)")


def measure(recipe: Recipe) -> None:
    """Trains what is not trained yet, and gathers the probe curves into curve.csv."""
    lines = panel_lines(recipe)
    fitted = fit_to_minutes(recipe, {", ".join(line): overrides for line, overrides in lines.items()})
    runs = {name: run_of(overrides) for name, overrides in fitted.items()}
    rows = [
        {"panel": panel, "method": label, **row}
        for (panel, label), run in zip(lines, runs.values(), strict=True)
        for row in measured_rows(run, "probe")
    ]
    write_csv(recipe.results / "curve.csv", rows)
    write_protocol(recipe, runs)


def draw(recipe: Recipe, rows: list[dict[str, Any]]) -> None:
    """One figure per dataset."""
    names = {"t": "noise level t (linear below 0.01)", "accuracy": "probe accuracy"}
    for panel in dict.fromkeys(row["panel"] for row in rows):
        lines = [row for row in rows if row["panel"] == panel]
        figure = plot_curves(lines, "t", "accuracy", series="method", names=names, title=panel, log_x=True)
        save_figure(figure, recipe.results / f"{panel}.png")


if __name__ == "__main__":
    main()
