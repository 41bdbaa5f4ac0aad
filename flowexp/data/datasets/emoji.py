"""Emoji: 3655 colour pictures with a caption each, from two packages of Debian: no download."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from PIL import Image

from flowexp.data.datasets.picture_folder import held_out
from flowexp.data.decoded import Decoded, Listing, Picture, some
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.as_seen import Square
from flowexp.data.storage.colour_font import ColourFont
from flowexp.flow.choices import check_choice
from flowexp.records.files import fingerprint

Labels = Literal["group", "subgroup"]
_ROW = re.compile(r"([0-9A-F ]+?) *; fully-qualified +# \S+ E[0-9.]+ (.+)")
_FONT_PACKAGE, _LIST_PACKAGE = "fonts-noto-color-emoji", "unicode-data"  # of Debian
_VARIATION, _SKIN_TONES = 0xFE0F, range(0x1F3FB, 0x1F400)


@dataclass(frozen=True)
class _Emoji:
    """A row of emoji-test.txt."""

    points: tuple[int, ...]
    caption: str
    group: str
    subgroup: str

    @property
    def name(self) -> str:
        """Its code points, as in 1F44B-1F3FB."""
        return "-".join(f"{point:X}" for point in self.points)

    @property
    def base(self) -> str:
        """The name without skin tones: those of one base are near copies of each other."""
        return "-".join(f"{point:X}" for point in self.points if point not in (*_SKIN_TONES, _VARIATION))


class Emoji(Decoded):
    """Pictures of Noto Color Emoji (136 x 128 pixels, on white) with the names that Unicode gives them.

    Classes are the 9 groups (Food & Drink) or the 99 subgroups (food-fruit) of Unicode's list. A fixed tenth of the
    base emoji of each group is held out, with all skin tones of each: 3328 pictures to train on and 327 held out of
    Unicode 15.0.

    The font and the list are looked for in `root`, and where Debian's packages fonts-noto-color-emoji and unicode-data
    put them. Both may be used freely: the SIL Open Font License, and the Unicode License.

    Arguments:
        labels: what the classes are: group or subgroup.
        others: see Decoded and ImageDataModule.

    Raises:
        ValueError: a number that is not positive, or an unknown word.
    """

    name = "emoji"
    num_train = 3328

    val_fraction: ClassVar[float] = 0.1
    font_file: ClassVar[str] = "NotoColorEmoji.ttf"
    list_file: ClassVar[str] = "emoji-test.txt"
    system_folders: ClassVar[tuple[Path, ...]] = (
        Path("/usr/share/fonts/truetype/noto"),
        Path("/usr/share/unicode/emoji"),
    )

    def __init__(
        self, *, labels: Labels = "group", square: Square = "pad", resolution: int = 32, **others: Any
    ) -> None:
        super().__init__(square=square, resolution=resolution, **others)
        check_choice("data.labels", labels, get_args(Labels))
        self.labels = labels

    def list_pictures(self) -> Listing:
        emoji = {each.name: each for each in self._listed()}
        names = list(dict.fromkeys(self._class_of(each) for each in emoji.values()))
        bases = {each.base: each.group for each in emoji.values()}
        test = {*held_out(bases, self.val_fraction, bases.__getitem__)[1]}
        pictures: dict[bool, list[Picture]] = {True: [], False: []}
        for each in emoji.values():
            picture = Picture(each.name, names.index(self._class_of(each)), (each.caption,))
            pictures[each.base in test].append(picture)
        return Listing(pictures[False], pictures[True], tuple(names))

    def _class_of(self, emoji: _Emoji) -> str:
        return emoji.group if self.labels == "group" else emoji.subgroup

    def _listed(self) -> list[_Emoji]:
        """What the list has and the font too, which may be of another version of Unicode."""
        file = self._file(self.list_file, _LIST_PACKAGE)
        emoji = list(_rows_of(file.read_text(encoding="utf-8")))
        if not emoji:
            raise DataError(f"{file} is damaged, or no list of Unicode's emoji: replace it, {INSTEAD}")
        drawn, missing = list[_Emoji](), list[str]()
        for each in emoji:
            if self._font.png_of(each.points) is None:
                missing.append(each.caption)
            else:
                drawn.append(each)
        if not drawn:
            font = self._file(self.font_file, _FONT_PACKAGE)
            raise DataError(f"{font} draws none of the emoji in {file}: replace it, {INSTEAD}")
        if missing:
            warnings.warn(f"not in the font, and passed over: {some(missing)}", stacklevel=2)
        return drawn

    def _file(self, name: str, package: str) -> Path:
        places = [folder / name for folder in (self.root, *self.system_folders)]
        for place in places:
            if place.is_file():
                return place
        looked_in = ", ".join(str(place.parent) for place in places)
        raise DataError(
            f"{name} not found in {looked_in}: install Debian's package {package}, put the file into {self.root}, "
            f"{INSTEAD}"
        )

    @cached_property
    def _font(self) -> ColourFont:
        return ColourFont(self._file(self.font_file, _FONT_PACKAGE))

    def open(self, picture: Picture) -> Image.Image:
        png = self._font.png_of([int(point, 16) for point in picture.name.split("-")])
        assert png is not None, "listed pictures are in the font"
        return Image.open(io.BytesIO(png))

    def identity(self, listing: Listing) -> str:
        """Of the contents of the font, and the pictures and their split."""
        font = self._file(self.font_file, _FONT_PACKAGE).read_bytes()
        names = [" ".join(picture.name for picture in part) for part in (listing.train, listing.test)]
        return fingerprint.of_content(font, "\n".join(names))


def _rows_of(text: str) -> Iterator[_Emoji]:
    """The fully qualified rows, each below the lines with its group and subgroup."""
    group = subgroup = ""
    for line in text.splitlines():
        if line.startswith("# group: "):
            group = line.removeprefix("# group: ")
        elif line.startswith("# subgroup: "):
            subgroup = line.removeprefix("# subgroup: ")
        elif match := _ROW.fullmatch(line):
            yield _Emoji(tuple(int(point, 16) for point in match[1].split()), match[2], group, subgroup)
