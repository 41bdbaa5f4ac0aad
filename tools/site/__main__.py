"""`python -m tools.site`: builds the site into build/site. A warning or a dead link is an error."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

from tools.site.keys import write_keys
from tools.site.links import dead_links
from tools.site.notebooks import write_notebooks
from tools.site.objects import write_objects
from tools.site.pages import ROOT, stage

PAGES, SITE = ROOT / "build/pages", ROOT / "build/site"


def write_pages(folder: Path = PAGES) -> None:
    """Everything that the site is made of, as Markdown and files beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder)
    write_keys(folder / "reference")
    write_objects(folder / "reference")
    write_notebooks(folder / "notebooks")


def warnings_of_the_build() -> list[str]:
    """Makes HTML of the pages; the lines in which Zensical or the reader of docstrings complains."""
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", "zensical.toml"]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)
    complaints = [line for line in said.splitlines() if re.search(r"^griffe|warning|error", line, re.I)]
    return complaints or ([said] if built.returncode else [])


def main() -> int:
    """Builds and checks; prints what is wrong, or where the site lies."""
    write_pages()
    problems = warnings_of_the_build() or [*dead_links(SITE)]
    print("\n".join(problems) or f"the site: {SITE.relative_to(ROOT)}/index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
