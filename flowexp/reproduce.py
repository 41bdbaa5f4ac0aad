"""`python -m flowexp.reproduce NAME [budget=cpu ...]`: makes a figure or a table of a paper; without NAME, lists them.

budget=smoke|cpu|...   how much is trained; a recipe's yaml has its own, cpu is the default
minutes=20             the most that it may take: all lines train fewer steps where they must
run=FOLDER             a trained run of your own in place of the recipe's one line
redraw=true            draws again from the tables, without training

NAME is lcf/fig04_probe_curve, or its beginning: lcf/fig04. Recipes lie in experiments/ and in the current folder: a
yaml and a Python file of the same name, see docs/new_idea. All write to results/NAME/BUDGET.
"""

from __future__ import annotations

import ast
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.cli.errors import sentence_for

if TYPE_CHECKING:
    from types import ModuleType

    from flowexp.cli.recipes import Recipe


def run(recipe: Recipe, module: ModuleType) -> None:
    """Measures unless it is only to be redrawn, then draws; says where everything lies."""
    from flowexp.cli.recipes import markdown_table
    from flowexp.records.atomic import write_text
    from flowexp.records.figures import save_figure

    began = time.perf_counter()
    if not recipe.redraw:
        _measure(recipe, module)
    tables = _tables(recipe)
    for name, figure in module.draw(tables).items():
        save_figure(figure, recipe.results / f"{name}.png")
    if hasattr(module, "summarise"):
        table = markdown_table(module.summarise(tables))
        write_text(recipe.results / "table.md", table)
        print(f"\n{table}")
    minutes = (time.perf_counter() - began) / 60
    print(f"figures, tables and protocol: {recipe.results} (after {minutes:.1f} minutes)")


def _measure(recipe: Recipe, module: ModuleType) -> None:
    """Trains and measures, and writes the tables, the pictures that belong to the measurements, and the protocol."""
    from flowexp.cli.recipes.lines import lines_of
    from flowexp.records.atomic import write_json
    from flowexp.records.figures import save_figure
    from flowexp.records.tables import write_csv

    lines = lines_of(recipe)
    recipe.results.mkdir(parents=True, exist_ok=True)
    for name, content in module.measure(lines).items():
        file = recipe.results / name
        if isinstance(content, Path):
            shutil.copyfile(content, file.with_suffix(".png"))
        elif isinstance(content, list):
            write_csv(file.with_suffix(".csv"), content)
        else:
            save_figure(content, file.with_suffix(".png"))
    if lines:
        protocol = {", ".join(str(value) for value in line.columns.values()): line.protocol() for line in lines}
        write_json(recipe.results / "protocol.json", protocol)


def _tables(recipe: Recipe) -> Mapping[str, list[dict[str, Any]]]:
    from flowexp.records.tables import read_csv

    return {file.stem: read_csv(file) for file in sorted(recipe.results.glob("*.csv"))}


def overview() -> str:
    """Every recipe with the first sentence of its Python file, and its budgets."""
    from omegaconf import OmegaConf

    from flowexp.cli.recipes import find_recipes

    lines = []
    for name, file in find_recipes().items():
        about = ast.get_docstring(ast.parse(file.with_suffix(".py").read_text(encoding="utf-8"))) or ""
        budgets = ", ".join(OmegaConf.select(OmegaConf.load(file), "budgets", default={}))
        lines.append(f"{name}\n    {about.splitlines()[0] if about else ''}\n    budgets: {budgets}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    name, others = given[0] if given else "", given[1:]
    if name in ("", "-h", "--help"):
        print(f"{__doc__}\n{overview()}")
        return 0
    try:
        return _reproduce(name, others)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on, with the runs that are trained", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = sentence_for(error, "train")
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2


def _reproduce(name: str, arguments: Sequence[str]) -> int:
    from flowexp.cli.recipes import read_recipe

    recipe = read_recipe(name, arguments)
    module = recipe.module()
    if hasattr(module, "main"):  # a recipe that goes its own way from here
        module.main(recipe)
    else:
        run(recipe, module)
    return 0


if __name__ == "__main__":
    sys.exit(main())
