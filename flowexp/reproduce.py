"""`python -m flowexp.reproduce NAME [budget=cpu ...]`: makes a figure or a table of a paper.

Without NAME: every recipe, with its budgets, its cost and what is here of it. `all` in place of NAME makes all of them.

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

import ast
import shutil
import sys
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flowexp.cli.errors import sentence_for

if TYPE_CHECKING:
    from types import ModuleType

    from flowexp.cli.recipes import Claim, Recipe


def run(recipe: Recipe, module: ModuleType) -> None:
    """Measures unless it is only to be redrawn, then draws, judges and tells; the last line is the page's path."""
    from flowexp.records.figures import also_save_as, save_figure, stamp

    began = time.perf_counter()
    also_save_as(recipe.figure_format)
    if not recipe.redraw:
        _measure(recipe, module)
    tables, scale = _tables(recipe), _scale(recipe)
    for name, figure in module.draw(tables).items():
        save_figure(stamp(figure, scale), recipe.results / f"{name}.png")
    rows = _summarise(recipe, module, tables)
    sentences = list(module.explain(tables)) if hasattr(module, "explain") else []
    print("".join(f"\n{_wrapped(sentence)}" for sentence in sentences))
    claims = _judge(recipe, module, tables)
    minutes = (time.perf_counter() - began) / 60
    if not recipe.redraw:
        _note(recipe, minutes)
    print(f"figures, tables and protocol: {recipe.results} (after {minutes:.1f} minutes); the page:")
    print(_write_page(recipe, module, rows, sentences, claims))


def _summarise(recipe: Recipe, module: ModuleType, tables: Mapping[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Prints the table that tells the whole, and writes it to table.md; none where the recipe has none."""
    from flowexp.cli.recipes import markdown_table
    from flowexp.cli.shown_table import print_rows
    from flowexp.records.atomic import write_text

    if not hasattr(module, "summarise"):
        return []
    rows: list[dict[str, Any]] = module.summarise(tables)
    write_text(recipe.results / "table.md", markdown_table(rows))
    print()
    print_rows(rows)
    return rows


def _wrapped(sentence: str) -> str:
    """A sentence in lines that fit the terminal, the first with a mark."""
    width = min(shutil.get_terminal_size().columns, 100)
    whole = sentence.replace(" %", "\u00a0%")  # stays with its number
    lines = textwrap.fill(whole, width, initial_indent="* ", subsequent_indent="  ", break_long_words=False)
    return lines.replace("\u00a0", " ")


def _write_page(
    recipe: Recipe, module: ModuleType, rows: list[dict[str, Any]], sentences: list[str], claims: Sequence[Claim]
) -> Path:
    """Writes report.html beside the figures, the pictures of samples before the curves."""
    from flowexp.records.atomic import write_text
    from flowexp.reporting.recipe_page import RecipePage

    pictures = sorted(recipe.results.glob("*.png"), key=lambda file: (not file.stem.startswith("samples"), file.stem))
    captions = getattr(module, "CAPTIONS", {})
    page = RecipePage(
        title=(module.__doc__ or recipe.name).splitlines()[0].rstrip("."),
        scale=_scale(recipe),
        sentences=sentences,
        claims=[(claim.state, claim.claim, claim.evidence) for claim in claims],
        table=rows,
        pictures={file: captions.get(file.stem, file.stem.replace("_", " ")) for file in pictures},
        made=_made(recipe),
    )
    write_text(recipe.results / "report.html", page.render())
    return recipe.results / "report.html"


def _judge(recipe: Recipe, module: ModuleType, tables: Mapping[str, list[dict[str, Any]]]) -> Sequence[Claim]:
    """Writes claims.json and prints how each claim of the yaml ended, which it returns."""
    from flowexp.cli.recipes import Judgement, decide
    from flowexp.cli.recipes.claims import UNTESTABLE
    from flowexp.records.atomic import write_json

    if not recipe.claims:
        return []
    judgements = module.judge(tables) if hasattr(module, "judge") else {}
    if recipe.budget == "smoke":
        judgements = dict.fromkeys(judgements, Judgement(UNTESTABLE, "because nothing is learned at budget=smoke"))
    claims = decide(recipe.claims, judgements)
    write_json(recipe.results / "claims.json", {claim.name: claim.data() for claim in claims})
    for claim in claims:
        print(_wrapped(f"{claim.state}: {claim.claim} [{claim.evidence}]"))
    return claims


def _scale(recipe: Recipe) -> str:
    """How much was trained, for every figure; empty where nothing was."""
    return str(_made(recipe).get("scale", ""))


def _made(recipe: Recipe) -> dict[str, Any]:
    """How the results came about, as far as that is kept beside them."""
    from flowexp.records.json_files import read_object

    try:
        return read_object(recipe.results / "made.json")
    except OSError:
        return {}


def _note(recipe: Recipe, minutes: float) -> None:
    """Keeps what the results took, beside them."""
    from flowexp.records.atomic import write_json
    from flowexp.records.commit import git_commit

    made = {"command": recipe.command, "scale": _scale(recipe), "minutes": round(minutes, 1), "seeds": recipe.seeds}
    write_json(recipe.results / "made.json", {**made, "commit": git_commit()})


def _measure(recipe: Recipe, module: ModuleType) -> None:
    """Trains and measures, and writes the tables, the pictures that belong to the measurements, and the protocol."""
    from flowexp.cli.recipes.lines import lines_of, scale_of
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
    write_json(recipe.results / "made.json", {"scale": scale_of(lines, recipe.seeds)})
    if lines:
        write_json(recipe.results / "protocol.json", {line.label: line.protocol() for line in lines})


def _tables(recipe: Recipe) -> Mapping[str, list[dict[str, Any]]]:
    from flowexp.records.tables import read_csv

    return {file.stem: read_csv(file) for file in sorted(recipe.results.glob("*.csv"))}


def overview() -> str:
    """Every recipe with the first sentence of its Python file, its budgets with their cost, and what is here of it."""
    from flowexp.cli.recipes import find_recipes
    from flowexp.cli.recipes.recipe import read_yaml

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
    from flowexp.records.json_files import read_object

    try:
        made = read_object(Path("results", name, budget, "made.json"))
        return f"{budget} [made: {made['minutes']:g} minutes]"
    except (OSError, ValueError, KeyError, TypeError):
        return f"{budget} ({costs[budget]})" if budget in costs else budget


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line. Returns the exit code."""
    given = [*(sys.argv[1:] if arguments is None else arguments)]
    name, others = given[0] if given else "", given[1:]
    if name in ("", "list", "-h", "--help"):
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
    """Every recipe that has the budget; one that fails leaves the others to go on, and makes the exit code 1."""
    from flowexp.cli.recipes import find_recipes
    from flowexp.cli.recipes.recipe import read_yaml

    budget = next((each.partition("=")[2] for each in reversed(arguments) if each.startswith("budget=")), "cpu")
    chosen = [name for name, file in find_recipes().items() if budget in read_yaml(file).get("budgets", {})]
    failed = []
    for number, name in enumerate(chosen, start=1):
        print(f"\n=== {name}, recipe {number} of {len(chosen)}", flush=True)
        if main([name, *arguments]) != 0:
            failed.append(name)
    print(f"\n{len(chosen) - len(failed)} of {len(chosen)} recipes at budget={budget} are made, below results/")
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


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
