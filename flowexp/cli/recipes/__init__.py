"""Recipes: a figure or a table of a paper by one command, from trained runs to pictures, tables and a protocol.

A recipe is a yaml with budgets, and a Python file of the same name beside it with

    measure(lines: Lines) -> tables    {"curve": rows, ...}; a table is a list of rows, each a dict
    draw(tables) -> figures            {"probe": Figure, ...}, from the tables alone, so that they can be drawn again
    summarise(tables) -> rows          optional: the table that is printed, and written to table.md
"""

from flowexp.cli.recipes.lines import Line, Lines, Rows
from flowexp.cli.recipes.recipe import Recipe, find_recipes, read_recipe
from flowexp.cli.recipes.tables import dips, distance_in, distance_name, interval_in, markdown_table

__all__ = [
    "Line",
    "Lines",
    "Recipe",
    "Rows",
    "dips",
    "distance_in",
    "distance_name",
    "find_recipes",
    "interval_in",
    "markdown_table",
    "read_recipe",
]
