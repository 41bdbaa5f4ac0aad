"""The pictures below a folder, with the captions that lie beside them; nothing is decoded."""

from __future__ import annotations

import csv
import json
import os
import unicodedata
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from flowexp.data.errors import DataError

ENDINGS = (
    ".png", ".apng", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif", ".jp2",
    ".j2k", ".ppm", ".pgm", ".pbm", ".pnm", ".tga",
)  # fmt: skip
TABLES = ("metadata.csv", "metadata.jsonl")  # as Hugging Face's imagefolder
COLUMNS = ("text", "caption", "captions", "prompt")  # of a table, the first that it has
CACHES = ".flowexp"  # folder in that of the pictures for what is decoded
BESIDE = (".txt", ".caption")  # as trainers of adapters have them


@dataclass
class PictureFiles:
    """What lies below a folder.

    Arguments:
        names: of the pictures, relative, with /, sorted.
        tables: metadata files, likewise.
        texts: files beside pictures that may be captions, likewise.
        hidden: pictures and folders that were not looked at, because a dot begins their name.
    """

    names: list[str] = field(default_factory=list)
    tables: list[str] = field(default_factory=list)
    texts: set[str] = field(default_factory=set)
    hidden: list[str] = field(default_factory=list)


def pictures_below(root: Path) -> PictureFiles:
    """All pictures in `root` and its subfolders, through symbolic links too, by the endings of their names."""
    found, seen = PictureFiles(), set[str]()
    for folder, folders, files in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:  # a link that leads back
            folders.clear()
            continue
        seen.add(real)
        place = PurePosixPath(Path(folder).relative_to(root).as_posix())
        hidden = [*(name for name in folders if name != CACHES), *filter(_is_picture, files)]
        found.hidden += [str(place / name) for name in sorted(hidden) if _is_hidden(name)]
        folders[:] = sorted(name for name in folders if not _is_hidden(name))
        for name in files:
            _sort_in(found, str(place / name))
    found.names.sort()
    return found


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name == "__MACOSX"


def _is_picture(name: str) -> bool:
    return PurePosixPath(name).suffix.lower() in ENDINGS


def _sort_in(found: PictureFiles, name: str) -> None:
    path = PurePosixPath(name)
    if _is_hidden(path.name):
        return
    if _is_picture(name):
        found.names.append(name)
    elif path.name in TABLES:
        found.tables.append(name)
    elif path.suffix.lower() in BESIDE:
        found.texts.add(name)


def captions_below(root: Path, files: PictureFiles, column: str | None = None) -> dict[str, tuple[str, ...]]:
    """The captions of each picture that has some: of a metadata table above it, else of a text file beside it.

    A text file has a caption in each line; so has a list in a table of JSON lines.

    column: of the tables; None is the first of COLUMNS.

    Raises:
        DataError: a table that cannot be read, or that lists a picture which is not there.
    """
    found = {name: lines for name in files.names if (lines := _beside(root, files, name))}
    by_name = {unicodedata.normalize("NFC", name): name for name in files.names}  # macOS takes accents apart
    for table in files.tables:
        for name, captions in _rows_of(root, table, column):
            if (known := by_name.get(unicodedata.normalize("NFC", name))) is None:
                raise DataError(f"{root / table} lists {name}, which is not there: take the row out, or put it there")
            found[known] = captions
    return found


def _beside(root: Path, files: PictureFiles, name: str) -> tuple[str, ...]:
    """The lines of `cat.txt` or `cat.jpg.txt` beside `cat.jpg`."""
    path = PurePosixPath(name)
    for text in (str(stem) + ending for stem in (path.with_suffix(""), path) for ending in BESIDE):
        if text in files.texts:
            return _not_empty(_read(root / text).splitlines())
    return ()


def _rows_of(root: Path, table: str, column: str | None) -> Iterator[tuple[str, tuple[str, ...]]]:
    """The picture and the captions of each row of a metadata table."""
    above, text = PurePosixPath(table).parent, _read(root / table)
    try:
        rows = list(csv.DictReader(text.splitlines(keepends=True))) if table.endswith(".csv") else _of_lines(text)
        for row in rows:
            key = column or next((name for name in COLUMNS if name in row), COLUMNS[0])
            said = row[key]
            captions = _not_empty(said if isinstance(said, list) else [said or ""])
            yield str(above / str(row["file_name"]).replace("\\", "/")), captions
    except (ValueError, KeyError, TypeError, AttributeError, csv.Error) as error:
        wanted = column or " or ".join(COLUMNS[:2])
        raise DataError(
            f"{root / table} must have file_name and {wanted} in each row ({error!r}): write them, or name the column "
            "of the captions by data.caption_column"
        ) from error


def _of_lines(text: str) -> list[Mapping[str, Any]]:
    return [json.loads(line) for line in text.splitlines() if line.strip()]


def _not_empty(lines: Iterable[str]) -> tuple[str, ...]:
    return tuple(line.strip() for line in lines if line.strip())


def _read(path: Path) -> str:
    """A text in UTF-8, with a mark of it or without. Raises DataError where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path} cannot be read as UTF-8 ({error}): save it so, or take it away") from error
