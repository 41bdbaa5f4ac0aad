"""Notebooks as pages: docs/notebooks/*.py is run cell by cell, and what a cell prints and draws stands below it."""

from __future__ import annotations

import contextlib
import io
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import jupytext

from tools.site.pages import DOCS, with_links_of_the_site

NOTEBOOKS = DOCS / "notebooks"
_NOISE = re.compile(r"\x1b\[[\d;]*m|.*\r")


def run(source: str, names: dict[str, Any], pictures: Path) -> str:
    """Runs a cell, and returns Markdown of what it printed and of the figures that it left open.

    pictures: the file of its figures without their numbers.
    """
    import matplotlib.pyplot as plt

    printed = io.StringIO()
    with (
        contextlib.redirect_stdout(printed),
        contextlib.redirect_stderr(io.StringIO()),
    ):  # progress bars, notes of libraries
        exec(compile(source, str(pictures), "exec"), names)
    parts = [f"```text\n{text}\n```"] if (text := _NOISE.sub("", printed.getvalue()).strip()) else []
    for number in plt.get_fignums():
        file = pictures.with_name(f"{pictures.name}_{number}.png")
        plt.figure(number).savefig(file, dpi=150, bbox_inches="tight")
        parts.append(f"![figure of the cell above]({file.name})")
    plt.close("all")
    return "\n\n".join(parts)


def page(notebook: Path, folder: Path) -> str:
    """The notebook's Markdown, its cells run in an empty folder; pictures go to `folder`."""
    names: dict[str, Any] = {"__name__": "__main__"}
    parts = []
    with tempfile.TemporaryDirectory() as empty, contextlib.chdir(empty):
        for number, cell in enumerate(jupytext.read(notebook).cells):
            if cell.cell_type == "markdown":
                parts.append(with_links_of_the_site(cell.source, notebook))
            else:
                shown = run(cell.source, names, folder / f"{notebook.stem}_{number}")
                parts += [f"```python\n{cell.source}\n```", shown]
    return "\n\n".join(filter(None, parts)) + "\n"


def write_notebooks(folder: Path) -> None:
    """Runs every notebook, and writes its page below `folder`."""
    os.environ["MPLBACKEND"] = "Agg"
    folder.mkdir(parents=True, exist_ok=True)
    for notebook in sorted(NOTEBOOKS.glob("*.py")):
        (folder / f"{notebook.stem}.md").write_text(page(notebook, folder))
