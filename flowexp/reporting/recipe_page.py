"""The page of a recipe: what it shows in sentences, its figures, its table, and how it was made."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowexp.reporting.page import template
from flowexp.reporting.reading import picture_size


@dataclass(frozen=True)
class RecipePage:
    """What a recipe's page has.

    Arguments:
        title: what it shows, in a line.
        scale: how much was trained, in a line; empty where nothing was.
        sentences: what the numbers show and what they do not.
        claims: (how it ended, the claim, the evidence), of each claim.
        table: its rows.
        pictures: captions of PNG files; the first stands above the table where it shows samples.
        made: where it comes from, by name: command, minutes, commit.
    """

    title: str
    scale: str
    sentences: Sequence[str]
    claims: Sequence[tuple[str, str, str]]
    table: Sequence[Mapping[str, Any]]
    pictures: Mapping[Path, str]
    made: Mapping[str, Any]

    def render(self) -> str:
        """A single HTML file that needs nothing beside it."""
        shown = {file: (caption, embedded(file), _is_wide(file)) for file, caption in self.pictures.items()}
        samples = [picture for file, picture in shown.items() if file.stem.startswith("samples")]
        figures = [picture for file, picture in shown.items() if not file.stem.startswith("samples")]
        page = template("recipe.html.jinja")
        return str(page.render(page=self, title=self.title, samples=samples, figures=figures))


def _is_wide(file: Path) -> bool:
    """Whether it has panels side by side, which a phone shows one at a time."""
    width, height = picture_size(file) or (1, 1)
    return width > 1.8 * height


def embedded(file: Path) -> str:
    """A PNG as a data URI: a page that is mailed keeps its pictures."""
    return f"data:image/png;base64,{base64.b64encode(file.read_bytes()).decode()}"
