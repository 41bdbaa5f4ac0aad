"""Links of a folder of HTML: each must lead to a file that is there, and to an anchor that is in it."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit


class _Page(HTMLParser):
    """What a page links to, and the anchors that it offers."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.anchors: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        for name, value in attrs:
            if name in ("href", "src") and value:
                self.links.append(value)
            elif name in ("id", "name") and value:
                self.anchors.add(value)


@cache
def _read(path: Path) -> _Page:
    page = _Page()
    page.feed(path.read_text())
    return page


def dead_links(site: Path) -> Iterator[str]:
    """A line for each internal link of a page below `site` that leads nowhere. Other hosts are not asked."""
    for path in sorted(site.rglob("*.html")):
        if path.name != "404.html":  # its links are relative to the site's address
            for link in sorted({*_read(path).links}):
                if not _is_alive(link, path):
                    yield f"{path.relative_to(site)}: dead link {link}"


def _is_alive(link: str, page: Path) -> bool:
    parts = urlsplit(link)
    if parts.scheme or parts.netloc:
        return True
    target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
    target = target / "index.html" if target.is_dir() else target
    if not target.is_file():
        return False
    anchor = unquote(parts.fragment)
    return not anchor or anchor == "__top" or target.suffix != ".html" or anchor in _read(target).anchors
