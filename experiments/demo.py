"""`make demo`: trains FM, LCF and MAFM on real digits, and shows samples, probe curve and numbers side by side."""

from __future__ import annotations

import shutil
import sys
from typing import Any

from experiments.recipes import markdown_table, measured_picture, measured_rows, read_recipe, run_of, write_protocol
from flowexp.figures import plot_curves, save_figure
from flowexp.tables import write_csv


def main() -> None:
    recipe = read_recipe(__file__, sys.argv[1:])
    recipe.results.mkdir(parents=True, exist_ok=True)
    runs = {label: run_of([*overrides, *recipe.settings.shared]) for label, overrides in recipe.settings.lines.items()}
    rows: list[dict[str, Any]] = [{"method": label, **row} for label, run in runs.items() for row in measured_rows(run, "probe")]
    write_csv(recipe.results / "probe_curve.csv", rows)
    names = {"t": "noise level t", "accuracy": "probe accuracy"}
    figure = plot_curves(rows, x="t", y="accuracy", series="method", names=names, title="what a linear probe reads off the features")
    save_figure(figure, recipe.results / "probe_curve.png")
    for label, run in runs.items():
        shutil.copyfile(measured_picture(run, "samples"), recipe.results / f"samples_{label.lower()}.png")
    table = markdown_table([{"method": label, **run.summary()["scalars"]} for label, run in runs.items()])
    (recipe.results / "numbers.md").write_text(table)
    write_protocol(recipe, runs)
    print(f"\n{table}")
    print(f"samples:      {', '.join(str(recipe.results / f'samples_{label.lower()}.png') for label in runs)}")
    print(f"probe curve:  {recipe.results / 'probe_curve.png'} (and .csv)")
    print(f"numbers:      {recipe.results / 'numbers.md'}, with their protocol in protocol.json")


if __name__ == "__main__":
    main()
