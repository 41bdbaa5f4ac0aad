"""The list of recipes: what each makes, at which budgets and cost, what is here of it, and how its claims ended."""

from __future__ import annotations

import ast
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowexp.cli.recipes.recipe import find_recipes, read_yaml, shipped
from flowexp.records.files.json_files import read_object

COMMITTED = "docs/results/replication"  # in a checkout: the results that the report is made of


def overview() -> str:
    """Every recipe with the first sentence of its Python file, its budgets with their cost, and what is here of it."""
    lines = []
    for name, file in find_recipes().items():
        about = ast.get_docstring(ast.parse(file.with_suffix(".py").read_text(encoding="utf-8"))) or ""
        config = read_yaml(file)
        budgets = [_with_cost(name, str(budget), config.get("costs", {})) for budget in config.get("budgets", {})]
        also = f"\n    draws {', '.join(config['also'])} too" if "also" in config else ""
        head = about.splitlines()[0] if about else ""
        lines.append(f"{name}\n    {head}{also}\n    budgets: {', '.join(budgets)}{_verdicts(name)}")
    return "\n".join(lines)


def _with_cost(name: str, budget: str, costs: Mapping[str, Any]) -> str:
    """A budget with its cost from nothing on, as its yaml has it, and whether there are results."""
    cost = f" ({costs[budget]})" if budget in costs else ""
    return f"{budget}{cost}{' [made]' if Path('results', name, budget, 'made.json').exists() else ''}"


def _verdicts(name: str) -> str:
    """How the claims of the committed results ended, on a line of its own; empty where there are none."""
    file = shipped().parent / COMMITTED / name / "claims.json"
    if not file.exists():
        return ""
    ends = Counter(str(claim["state"]) for claim in read_object(file).values())
    return f"\n    in {COMMITTED}: {', '.join(f'{number} {state}' for state, number in ends.items())}"
