"""Markdown of the repository as pages of the site: copied, with links to what the site has of their targets."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
REPOSITORY = "https://github.com/flowexp/flowexp/blob/main"
OF_THE_PROJECT = ("CHANGELOG", "CODE_OF_CONDUCT", "CONTRIBUTING", "SECURITY")  # in the root, where code hosts look
SHOWN_AS_CODE = {".py": "python", ".yaml": "yaml"}
_FENCE = re.compile(r"(^ *```.*?^ *```|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"(!?\[(?:[^\[\]]|\[[^\]]*\])*\])\(([^)\s]+)\)")


def page_of(path: Path) -> Path | None:
    """Where the site has a file of the repository, relative to its root; None where it has none."""
    if path.parent == ROOT and path.suffix == ".md":
        return Path("index.md") if path.stem == "README" else _project_page(path.stem)
    if not path.is_relative_to(DOCS):
        return None
    inside = path.relative_to(DOCS)
    if path.is_dir():
        return inside / "index.md" if (path / "README.md").exists() else None
    if inside.parts[0] == "notebooks" and path.suffix == ".py":
        return inside.with_suffix(".md")
    if path.suffix in SHOWN_AS_CODE:
        return inside.with_name(f"{path.stem}_{path.suffix[1:]}.md")
    return inside.with_name("index.md") if inside.name == "README.md" else inside


def _project_page(name: str) -> Path | None:
    return Path("project", f"{name.lower()}.md") if name in OF_THE_PROJECT else None


def with_links_of_the_site(text: str, source: Path) -> str:
    """A page's text, in which links lead to pages of the site, or into the repository where there is none.

    source: the page's file, which its links are relative to.
    """
    here = page_of(source)
    assert here is not None, source

    def turned(match: re.Match[str]) -> str:
        target, hash_, anchor = match[2].partition("#")
        if "://" in target or not target or target.startswith("mailto:"):
            return match[0]
        path = (source.parent / target).resolve()
        page = page_of(path)
        to = os.path.relpath(page, here.parent) if page else f"{REPOSITORY}/{path.relative_to(ROOT)}"
        return f"{match[1]}({to}{hash_}{anchor})"

    parts = _FENCE.split(text)
    return "".join(part if place % 2 else _LINK.sub(turned, part) for place, part in enumerate(parts))


def stage(folder: Path) -> None:
    """Writes the pages of docs/ and of the project below `folder`, and the pictures and tables that they show."""
    files = [path for path in sorted(DOCS.rglob("*")) if path.is_file() and "__pycache__" not in path.parts]
    for path in [*files, *(ROOT / f"{name}.md" for name in OF_THE_PROJECT)]:
        page = page_of(path)
        if page is None or (page.parts[0] == "notebooks" and path.suffix == ".py"):
            continue
        target = folder / page
        target.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix == ".md":
            target.write_text(with_links_of_the_site(path.read_text(), path))
        elif path.suffix in SHOWN_AS_CODE:
            code = f"```{SHOWN_AS_CODE[path.suffix]}\n{path.read_text()}```\n"
            target.write_text(f"# {path.name}\n\n`{path.relative_to(ROOT)}`\n\n{code}")
        else:
            shutil.copy(path, target)
