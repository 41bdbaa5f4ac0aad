"""`python -m flowexp.reproduce NAME [budget=cpu ...]`: makes a figure or a table of a paper.

Without NAME: every recipe, with its budgets, its cost and what is here of it. `all` in place of NAME makes all of them,
each with those of the arguments that it takes.

budget=smoke|cpu|...   how much is trained; a recipe's yaml has its own, cpu is the default
seeds=3                how many seeds every line is trained with; figures show their mean and spread
minutes=20             the most that it may take: all lines train fewer steps where they must
run=FOLDER             a trained run of your own in place of the recipe's one line
redraw=true            draws again from the tables, without training
figure.format=pdf      every figure as PDF (or svg) too, in the width of a paper's column

NAME is lcf/fig04_probe_curve, or its beginning: lcf/fig04, lcf/fig4, vd/table1. Recipes lie in experiments/ and in the
current folder: a yaml and a Python file of the same name, see docs/new_idea. All write to results/NAME/BUDGET.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from flowexp.cli.errors import sentence_for


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    name, others = given[0] if given else "", given[1:]
    if name in ("", "list", "-h", "--help"):
        from flowexp.cli.recipes.overview import overview

        print(f"{__doc__}\n{overview()}")
        return 0
    try:
        return _all(others) if name == "all" else _reproduce(name, others)
    except KeyboardInterrupt:
        print("\nstopped: the same command goes on, with the runs that are trained", file=sys.stderr)
        return 130
    except Exception as error:
        sentence = sentence_for(error, "train")
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2


def _all(arguments: Sequence[str]) -> int:
    """Every recipe that has the budget; one that fails leaves the others to go on, and makes the exit code 1.

    Each gets those of the arguments that it takes. One that needs a file of the user's own is left out without it.
    """
    from flowexp.cli.recipes.recipe import find_recipes, read_yaml, taken, without

    budget = next((each.partition("=")[2] for each in reversed(arguments) if each.startswith("budget=")), "cpu")
    configs = {name: read_yaml(file) for name, file in find_recipes().items()}
    chosen = {name: config for name, config in configs.items() if budget in config.get("budgets", {})}
    of_each = {name: taken(config, arguments) for name, config in chosen.items()}
    if unknown := set(arguments).difference(*of_each.values()):
        raise ValueError(f"no recipe of budget={budget} takes {', '.join(sorted(unknown))}")
    made: list[str] = []
    failed: list[str] = []
    left_out: list[str] = []
    for number, (name, config) in enumerate(chosen.items(), start=1):
        print(f"\n=== {name}, recipe {number} of {len(chosen)}", flush=True)
        if missing := without(config, arguments):
            print(f"left out: it needs {', '.join(missing)}")
            left_out.append(name)
        else:
            (made if main([name, *of_each[name]]) == 0 else failed).append(name)
    print(f"\n{len(made)} of {len(chosen)} recipes at budget={budget} are made, below results/")
    if left_out:
        print(f"left out for want of an argument: {', '.join(left_out)}")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


def _reproduce(name: str, arguments: Sequence[str]) -> int:
    from flowexp.cli.recipes import read_recipe
    from flowexp.cli.warm_starts import warm_starts

    recipe = read_recipe(name, arguments)
    module = recipe.module()
    with warm_starts(recipe.budget == "smoke"):  # its runs take seconds, of which imports are most
        if hasattr(module, "main"):  # a recipe that goes its own way from here
            module.main(recipe)
        else:
            from flowexp.cli.recipes.making import make

            make(recipe, module)
    return 0


if __name__ == "__main__":
    sys.exit(main())
