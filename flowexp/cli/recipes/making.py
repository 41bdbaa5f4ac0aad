"""From a recipe to its results: measured, drawn, summarised and judged, and shown on a page."""

from __future__ import annotations

import shutil
import textwrap
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf import OmegaConf

from flowexp.cli.recipes import Claim, Judgement, Recipe, decide
from flowexp.cli.recipes.claims import UNTESTABLE
from flowexp.cli.recipes.lines import lines_of, scale_of
from flowexp.cli.shown_table import print_rows
from flowexp.records.commit import git_commit
from flowexp.records.figures import also_save_as, save_figure, stamp
from flowexp.records.files.atomic import write_json, write_text
from flowexp.records.files.json_files import read_object
from flowexp.records.tables import markdown_table, read_csv, write_csv
from flowexp.reporting.recipe_page import RecipePage


def make(recipe: Recipe, module: ModuleType) -> None:
    """Measures unless it is only to be redrawn, then draws, judges and tells; the last line is the page's path."""
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
    try:
        return read_object(recipe.results / "made.json")
    except OSError:
        return {}


def _note(recipe: Recipe, minutes: float) -> None:
    """Keeps what the results took, beside them."""
    made = {"command": recipe.command, "scale": _scale(recipe), "minutes": round(minutes, 1), "seeds": recipe.seeds}
    write_json(recipe.results / "made.json", {**made, "commit": git_commit()})


def _measure(recipe: Recipe, module: ModuleType) -> None:
    """Trains and measures, and writes the tables, the pictures that belong to the measurements, and the protocol."""
    lines = lines_of(recipe)
    recipe.results.mkdir(parents=True, exist_ok=True)
    scale = scale_of(lines, recipe.seeds)
    for name, content in module.measure(lines).items():
        file = recipe.results / name
        if isinstance(content, Path):
            shutil.copyfile(content, file.with_suffix(".png"))
        elif isinstance(content, list):
            write_csv(file.with_suffix(".csv"), content)
        else:
            save_figure(stamp(content, scale), file.with_suffix(".png"))
    write_json(recipe.results / "made.json", {"scale": scale})
    of_lines: dict[str, Any] = {line.label: line.protocol() for line in lines}
    write_json(recipe.results / "protocol.json", of_lines or {"settings": OmegaConf.to_container(recipe.settings)})


def _tables(recipe: Recipe) -> Mapping[str, list[dict[str, Any]]]:
    return {file.stem: read_csv(file) for file in sorted(recipe.results.glob("*.csv"))}
