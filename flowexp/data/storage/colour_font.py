"""The pictures in a font of coloured bitmaps, by the characters that they stand for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from flowexp.data.errors import DataError

_VARIATION = 0xFE0F  # asks for colour where a character has two looks: the font has colour alone
_LIGATURES, _EXTENSION = 4, 7  # types of lookups in the table GSUB


class ColourFont:
    """A font with the tables CBDT and CBLC, such as Noto Color Emoji: a PNG for each glyph.

    A sequence of characters, as a flag or a family is, becomes one glyph by the font's ligatures.

    Arguments:
        path: the file.

    Raises:
        DataError: it cannot be read, or has no coloured bitmaps.
    """

    def __init__(self, path: Path) -> None:
        from fontTools.ttLib import TTFont, TTLibError

        try:
            font = TTFont(path, lazy=True)
            self._glyphs: dict[int, str] = font.getBestCmap()
            self._bitmaps: dict[str, Any] = font["CBDT"].strikeData[0]  # the only size
            self._ligatures = {tuple(parts): glyph for parts, glyph in _ligatures_of(font)}
        except (OSError, TTLibError, KeyError, IndexError, AttributeError) as error:
            raise DataError(f"{path} is damaged, or no font of coloured bitmaps (CBDT) ({error!r})") from error

    def png_of(self, characters: Sequence[int]) -> bytes | None:
        """The picture of one character or of a sequence, by their code points; None where the font has none."""
        names = tuple(self._glyphs.get(point, "") for point in characters if point != _VARIATION)
        glyph = names[0] if len(names) == 1 else self._ligatures.get(names)
        bitmap = self._bitmaps.get(glyph) if glyph else None
        return None if bitmap is None else bytes(bitmap.imageData)


def _ligatures_of(font: Any) -> Iterator[tuple[list[str], str]]:
    """The glyphs that are drawn as one, and that one."""
    for lookup in font["GSUB"].table.LookupList.Lookup:
        for table in lookup.SubTable:
            inner = table.ExtSubTable if table.LookupType == _EXTENSION else table
            if inner.LookupType != _LIGATURES:
                continue
            for first, ligatures in inner.ligatures.items():
                for ligature in ligatures:
                    yield [first, *ligature.Component], ligature.LigGlyph
