"""A folder of anybody's pictures, as it is."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from flowexp.data.decoded import Decoded, Listing, Picture, some
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.sets.identity import identity_of_files
from flowexp.data.storage.file_tree import Folder
from flowexp.data.storage.picture_files import CACHES, ENDINGS, PictureFiles, captions_below, pictures_below
from flowexp.records.files import fingerprint

TRAIN, HELD_OUT = "train", ("val", "valid", "validation", "test")  # folders of a split; the first held-out one counts
Parts = tuple[list[str], list[str]]  # names to train on, and held out


class PictureFolder(Decoded):
    """All pictures in `root`, whatever their names, sizes, formats and modes, seen as a person sees them.

    Subfolders `train` and `val` (or valid, validation, test) are the splits. Otherwise `val_fraction` is held out, of
    each class alike and by a hash of the names, so that nearly all stay where they are when pictures are added. Where
    all pictures lie in subfolders, those are the classes, in the order of their names. Hidden ones are passed over.

    Arguments:
        root: the folder.
        val_fraction: of the pictures that is held out, between 0 and 1; not used where there are `train` and `val`.
        classes: true where subfolders are classes, false where they are not, None where all pictures lie in some.
        caption_column: of metadata.csv or metadata.jsonl; None is text or caption.
        others: see Decoded and ImageDataModule.

    Raises:
        ValueError: a number out of range, or an unknown word.
    """

    name = "folder"

    def __init__(
        self,
        root: str | Path,
        *,
        val_fraction: float = 0.1,
        classes: bool | None = None,
        caption_column: str | None = None,
        **others: Any,
    ) -> None:
        super().__init__(root=root, **others)
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}")
        self.name = self.root.absolute().name or "folder"
        self.val_fraction = val_fraction
        self.classes = classes
        self.caption_column = caption_column

    @property
    def place_of_caches(self) -> Path:
        return self.root / CACHES

    def list_pictures(self) -> Listing:
        files = self._files()
        captions = captions_below(self.root, files, self.caption_column) if self.text is not None else {}
        given = self._given_splits(files.names)
        depth = 0 if given is None else 1
        train, test = given or (files.names, [])
        names = self._class_names([*train, *test], depth)
        if not test:
            train, test = held_out(train, self.val_fraction, lambda name: _class_of(name, depth) if names else "")
        self._check_splits(train, test)
        number = {name: place for place, name in enumerate(names)}

        def listed(part: Sequence[str]) -> list[Picture]:
            return [Picture(name, number.get(_class_of(name, depth), 0), captions.get(name, ())) for name in part]

        return Listing(listed(train), listed(test), names)

    def _files(self) -> PictureFiles:
        if not self.root.is_dir():
            raise DataError(f"data.root={self.root} is no folder: give one with pictures, {INSTEAD}")
        files = pictures_below(self.root)
        if not files.names:
            raise DataError(
                f"{self.root} has no picture ({', '.join(sorted(ENDINGS))}): give another folder, {INSTEAD}"
            )
        if files.hidden:
            warnings.warn(f"hidden in {self.root}, and passed over: {some(files.hidden)}", stacklevel=2)
        return files

    def _given_splits(self, names: Sequence[str]) -> Parts | None:
        """The pictures in `train` and in the held-out folder, if there is one; None where there is no `train`."""
        tops = {PurePosixPath(name).parts[0] for name in names if len(PurePosixPath(name).parts) > 1}
        held = next((folder for folder in HELD_OUT if folder in tops), None)
        if TRAIN not in tops or (held is None and len(tops) > 1):
            return None
        train, test = ([name for name in names if name.startswith(f"{folder}/")] for folder in (TRAIN, held))
        if others := [name for name in names if name not in {*train, *test}]:
            warnings.warn(
                f"outside of {TRAIN} and {held} in {self.root}, and passed over: {some(others)}", stacklevel=2
            )
        return train, test

    def _class_names(self, names: Sequence[str], depth: int) -> tuple[str, ...]:
        """The subfolders, sorted; empty where they are no classes."""
        outside = next((name for name in names if len(PurePosixPath(name).parts) < depth + 2), None)
        if self.classes and outside is not None:
            raise DataError(
                f"data.classes=true needs every picture in the folder of its class, and {outside} is in none"
            )
        if self.classes is False or outside is not None:
            return ()
        found = sorted({_class_of(name, depth) for name in names})
        return tuple(found) if len(found) > 1 or self.classes else ()

    def _check_splits(self, train: Sequence[str], test: Sequence[str]) -> None:
        if not train or not test:
            what = "held out" if train else "trained on"
            raise DataError(
                f"{self.root} has {len(train) + len(test)} pictures, and none can be {what} with "
                f"data.val_fraction={self.val_fraction}: add pictures, or folders {TRAIN} and {HELD_OUT[0]}"
            )

    def open(self, picture: Picture) -> Image.Image:
        return Image.open(io.BytesIO((self.root / picture.name).read_bytes()))

    def identity(self, listing: Listing) -> str:
        names = [picture.name for picture in (*listing.train, *listing.test)]
        return identity_of_files(Folder(self.root), names, f"{len(listing.train)}")

    def where_captions_go(self) -> str:
        return (
            "write a text file of its name beside each (cat.txt for cat.jpg), or metadata.csv with the columns "
            "file_name and text, or choose data=folder, without captions"
        )


def held_out(names: Iterable[str], fraction: float, class_of: Callable[[str], str]) -> Parts:
    """Names to train on and names held out: of each class a fraction, by the hashes of its names, at least 1 of 2."""
    by_class: dict[str, list[str]] = {}
    for name in names:
        by_class.setdefault(class_of(name), []).append(name)
    taken: set[str] = set()
    for members in by_class.values():
        num = min(max(1, round(fraction * len(members))), len(members) - 1)
        taken.update(sorted(members, key=_hash)[:num])
    ordered = [name for members in by_class.values() for name in members]
    return [name for name in ordered if name not in taken], [name for name in ordered if name in taken]


def _hash(name: str) -> bytes:
    return fingerprint.Fingerprint().add(name).raw


def _class_of(name: str, depth: int) -> str:
    return PurePosixPath(name).parts[depth]
