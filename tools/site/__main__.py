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
from tools.site.objects import OBJECT_PAGES, write_objects
from tools.site.pages import ROOT, stage

PAGES, SITE = ROOT / "build/pages", ROOT / "build/site"


def write_pages(folder: Path = PAGES) -> None:
    """Everything that the site is made of, as Markdown and files beside it."""
    shutil.rmtree(folder, ignore_errors=True)
    stage(folder)
    shutil.copy(Path(__file__).with_name("site.css"), folder)
    write_keys(folder / "reference")
    write_objects(folder / "reference")
    write_index(folder / "reference")
    write_notebooks(folder / "notebooks")


def write_index(folder: Path) -> None:
    """The reference's first page: a line for each page below it."""
    objects = [folder / name for name in OBJECT_PAGES.values()]
    commands, keys = (sorted((folder / name).glob("*.md")) for name in ("commands", "keys"))
    parts = [
        (commands, "Commands", "What `flowexp COMMAND --help` prints of a command's own keys."),
        (keys, "Keys", "Each group of `conf/`: `group=name` chooses, `group.key=value` changes."),
        (objects, "Python", "Public functions and classes, from their docstrings."),
    ]
    text = "# Reference\n"
    for pages, title, about in parts:
        places = [(path.read_text().splitlines()[0][2:], path.relative_to(folder)) for path in pages]
        links = " · ".join(f"[{name}]({place})" for name, place in places)
        text += f"\n## {title}\n\n{about}\n\n{links}\n"
    (folder / "index.md").write_text(text)


def write_config(pages: Path = PAGES) -> Path:
    """Zensical's configuration beside the pages, with the generated ones in its navigation; returns its path."""
    places = {
        "NOTEBOOKS": "notebooks/*.md",
        "COMMANDS": "reference/commands/*.md",
        "KEYS": "reference/keys/*.md",
        "DIAGNOSTICS": "diagnostics/*.md",
        "METRICS": "metrics/*.md",
        "RESULTS": "results/*/index.md",
    }
    text = Path(__file__).with_name("zensical.toml").read_text()
    for name, pattern in places.items():
        found = [path.relative_to(pages) for path in sorted(pages.glob(pattern))]
        chosen = [path for path in found if path.name != "index.md" or pattern.endswith("index.md")]
        listed = ", ".join(f'"{path}"' for path in chosen)
        text = text.replace(f'"{name}"', listed)
    text = text.replace('"OBJECTS"', ", ".join(f'"reference/{name}"' for name in OBJECT_PAGES.values()))
    config = pages.parent / "zensical.toml"
    config.write_text(text)
    return config


def warnings_of_the_build() -> list[str]:
    """Makes HTML of the pages; the lines in which Zensical or the reader of docstrings complains."""
    config = str(write_config())
    command = [sys.executable, "-m", "zensical", "build", "--clean", "--strict", "--config-file", config]
    built = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    said = re.sub(r"\x1b\[[\d;]*m", "", built.stdout + built.stderr)
    complaints = [line for line in said.splitlines() if re.search(r"^griffe|warning|error|\[ \S+\.md:\d+", line, re.I)]
    return complaints or ([said] if built.returncode else [])


def main() -> int:
    """Builds and checks; prints what is wrong, or where the site lies."""
    write_pages()
    problems = warnings_of_the_build() or [*dead_links(SITE)]
    print("\n".join(problems) or f"the site: {SITE.relative_to(ROOT)}/index.html")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
