"""Recipes: a figure or a table of a paper by one command, from trained runs to pictures, tables and a protocol.

A recipe is a yaml with budgets, and a Python file of the same name beside it with

    measure(lines: Lines) -> tables    {"curve": rows, ...}; a table is a list of rows, each a dict
    draw(tables) -> figures            {"probe": Figure, ...}, from the tables alone, so that they can be drawn again
    summarise(tables) -> rows          optional: the table that is printed, and written to table.md
    judge(tables) -> judgements        {"dip": Judgement(...), ...}, for the `claims` of the yaml
"""

from flowexp.cli.recipes.claims import Claim, Judgement, decide, judge_difference
from flowexp.cli.recipes.lines import Line, Lines, Rows
from flowexp.cli.recipes.published import published
from flowexp.cli.recipes.recipe import Recipe, find_recipes, read_recipe
from flowexp.cli.recipes.scores import compare_scores, gains, plot_cells, score_columns
from flowexp.cli.recipes.tables import (
    baselines_in,
    by_seed,
    dips,
    distance_in,
    distance_name,
    interval_in,
    markdown_table,
    network_rows,
    over_seeds,
)

__all__ = [
    "Claim",
    "Judgement",
    "Line",
    "Lines",
    "Recipe",
    "Rows",
    "baselines_in",
    "by_seed",
    "compare_scores",
    "decide",
    "dips",
    "distance_in",
    "distance_name",
    "find_recipes",
    "gains",
    "interval_in",
    "judge_difference",
    "markdown_table",
    "network_rows",
    "over_seeds",
    "plot_cells",
    "published",
    "read_recipe",
    "score_columns",
]
