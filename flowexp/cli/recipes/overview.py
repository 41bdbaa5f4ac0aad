"""The list of recipes: what each makes, at which budgets and cost, and what is here of it."""

from __future__ import annotations

import ast
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowexp.cli.recipes.recipe import find_recipes, read_yaml
from flowexp.records.files.json_files import read_object


def overview() -> str:
    """Every recipe with the first sentence of its Python file, its budgets with their cost, and what is here of it."""
    lines = []
    for name, file in find_recipes().items():
        about = ast.get_docstring(ast.parse(file.with_suffix(".py").read_text(encoding="utf-8"))) or ""
        config = read_yaml(file)
        budgets = [_with_cost(name, str(budget), config.get("costs", {})) for budget in config.get("budgets", {})]
        also = f"\n    draws {', '.join(config['also'])} too" if "also" in config else ""
        head = about.splitlines()[0] if about else ""
        lines.append(f"{name}\n    {head}{also}\n    budgets: {', '.join(budgets)}")
    return "\n".join(lines)


def _with_cost(name: str, budget: str, costs: Mapping[str, Any]) -> str:
    """A budget with its cost, as its yaml or the results that are here have it, and whether there are results."""
    try:
        made = read_object(Path("results", name, budget, "made.json"))
        return f"{budget} [made: {made['minutes']:g} minutes]"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{budget} ({costs[budget]})" if budget in costs else budget
