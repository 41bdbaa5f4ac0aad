"""Recipes: a figure or a table of a paper by one command, from trained runs to pictures, tables and a protocol.

A recipe is a yaml with budgets, and a Python file of the same name beside it with

    measure(lines: Lines) -> tables    {"curve": rows, ...}; a table is a list of rows, each a dict
    draw(tables) -> figures            {"probe": Figure, ...}, from the tables alone, so that they can be drawn again
    summarise(tables) -> rows          optional: the table that is printed, and written to table.md
    judge(tables) -> judgements        {"dip": Judgement(...), ...}, for the `claims` of the yaml
"""

from flowexp.cli.recipes.claims import (
    Claim,
    Judgement,
    decide,
    denied,
    differences,
    judge_difference,
    judge_points,
    judge_share,
    provided,
)
from flowexp.cli.recipes.comparing.cells import plot_cells
from flowexp.cli.recipes.comparing.distances import (
    distances_over_epochs,
    last_distances,
    plot_distances,
    shares_saved,
)
from flowexp.cli.recipes.comparing.features_and_samples import (
    draw_features_and_samples,
    measure_features_and_samples,
    plot_ends,
    summarise_methods,
)
from flowexp.cli.recipes.comparing.probe_curves import (
    clean_by_seed,
    dips_by_seed,
    peaks_by_seed,
    plot_probes,
    summarise_probes,
)
from flowexp.cli.recipes.comparing.published import published
from flowexp.cli.recipes.comparing.scores import (
    Printed,
    compare_scores,
    gains,
    least_gains,
    measure_scores,
    score_columns,
)
from flowexp.cli.recipes.comparing.tables import (
    baselines_in,
    by_seed,
    dips,
    distance_in,
    distance_name,
    interval_in,
    network_rows,
    over_seeds,
    spread_in,
    with_band,
)
from flowexp.cli.recipes.comparing.trade_off import plot_trade_off
from flowexp.cli.recipes.lines import Line, Lines, Rows
from flowexp.cli.recipes.recipe import Recipe, find_recipes, read_recipe

__all__ = [
    "Claim",
    "Judgement",
    "Line",
    "Lines",
    "Printed",
    "Recipe",
    "Rows",
    "baselines_in",
    "by_seed",
    "clean_by_seed",
    "compare_scores",
    "decide",
    "denied",
    "differences",
    "dips",
    "dips_by_seed",
    "distance_in",
    "distance_name",
    "distances_over_epochs",
    "draw_features_and_samples",
    "find_recipes",
    "gains",
    "interval_in",
    "judge_difference",
    "judge_points",
    "judge_share",
    "last_distances",
    "least_gains",
    "measure_features_and_samples",
    "measure_scores",
    "network_rows",
    "over_seeds",
    "peaks_by_seed",
    "plot_cells",
    "plot_distances",
    "plot_ends",
    "plot_probes",
    "plot_trade_off",
    "provided",
    "published",
    "read_recipe",
    "score_columns",
    "shares_saved",
    "spread_in",
    "summarise_methods",
    "summarise_probes",
    "with_band",
]
