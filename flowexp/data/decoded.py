"""Datasets of pictures in any size and format, decoded once into a cache that is mapped into memory."""

from __future__ import annotations

import warnings
from abc import abstractmethod
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from PIL import Image
from rich.console import Console
from rich.progress import track

from flowexp.data.base import check_positive
from flowexp.data.captioned import Captioned
from flowexp.data.errors import DataError
from flowexp.data.sets.as_seen import SQUARES, Square, square
from flowexp.data.sets.batch_rows import Images
from flowexp.data.sets.encoder_protocols import CaptionEncoder
from flowexp.data.sets.images import ImageSet
from flowexp.data.storage.image_cache import ImageCache, NoRoomError, Split
from flowexp.flow.choices import check_choice
from flowexp.records.files import fingerprint

_AT_ONCE = 64  # pictures that are decoded side by side
_NAMED = 3  # pictures that a sentence names of many
Broken = Literal["refuse", "skip"]


@dataclass(frozen=True)
class Picture:
    """A picture that is listed and not decoded yet.

    Arguments:
        name: by which its dataset opens it.
        label: its class, 0 where there are none.
        captions: what it shows, in words.
    """

    name: str
    label: int = 0
    captions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Listing:
    """The pictures of a dataset, to train on and held out, and the names of their classes."""

    train: Sequence[Picture]
    test: Sequence[Picture]
    class_names: tuple[str, ...] = ()


class Decoded(Captioned):
    """Pictures that are resized once, into `cache`, and mapped from there.

    A dataset gives `list_pictures`, `open` and `identity`. The cache is named by the identity and by all that decides
    the pixels, so that a dataset that has changed is decoded anew, beside what was decoded before.

    Arguments:
        resolution: side of the squares, pixels.
        channels: 1 is grey, 3 colour.
        square: how a picture becomes a square: crop (its middle, as ADM), pad (all of it, on white) or stretch.
        broken: what becomes of pictures that cannot be read: refuse or skip; either way they are named.
        cache: folder for what is decoded; None is one in `root`.
        text: what embeds captions; None is a dataset without them.
        num_workers: threads that decode.
        others: root, batch_size, train_size, flip, seed and on_device, see ImageDataModule.

    Raises:
        ValueError: a number that is not positive, or an unknown word.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        channels: int = 3,
        square: Square = "crop",
        broken: Broken = "refuse",
        cache: str | Path | None = None,
        text: CaptionEncoder | None = None,
        num_workers: int = 2,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        check_positive(resolution=resolution, num_workers=num_workers)
        check_choice("data.square", square, SQUARES)
        check_choice("data.broken", broken, get_args(Broken))
        if channels not in (1, 3):
            raise ValueError(f"data.channels must be 1 for grey or 3 for colour, got {channels}")
        self.resolution = resolution
        self.channels = channels
        self.square = square
        self.broken = broken
        self.cache = None if cache is None else Path(cache).expanduser()
        self.num_workers = num_workers
        self.use_text(text)

    @abstractmethod
    def list_pictures(self) -> Listing:
        """What there is. Raises DataError where the dataset is not there, or not as it must be."""

    @abstractmethod
    def open(self, picture: Picture) -> Image.Image:
        """A picture in whatever size and mode. May raise anything where it is broken."""

    @abstractmethod
    def identity(self, listing: Listing) -> str:
        """What tells these pictures from others, without decoding them."""

    @cached_property
    def listing(self) -> Listing:
        """`list_pictures`, once."""
        return self.list_pictures()

    @property
    def num_classes(self) -> int:  # type: ignore[override]  # known when the pictures are listed, and not before
        return len(self.listing.class_names)

    @property
    def class_names(self) -> tuple[str, ...]:  # type: ignore[override]
        return self.listing.class_names

    @property
    def place_of_caches(self) -> Path:
        """Where decoded pictures go without `cache`."""
        return self.root

    def load(self) -> tuple[Images, Images]:
        """Raises DataError where pictures are missing, broken or without a caption that is needed."""
        self._check_captions()
        train, test = self._decoded()
        return self._labelled("train", train), self._labelled("test", test)

    def _check_captions(self) -> None:
        pictures = [*self.listing.train, *self.listing.test]
        if self.text is not None and (silent := [each.name for each in pictures if not each.captions]):
            raise DataError(
                f"each of the {len(pictures):,} pictures of {self.name} needs a caption, and {some(silent)} lack one: "
                f"{self.where_captions_go()}"
            )

    def where_captions_go(self) -> str:
        """What to do where captions are missing."""
        return "choose a dataset with captions"

    def _decoded(self) -> tuple[ImageSet, ImageSet]:
        """Both splits; as labels they have the places in the listing."""
        origin = {"pictures": self.identity(self.listing), **self._settings()}
        name = f"decoded_{self.resolution}_{fingerprint.of_values(origin, digits=8)}"
        cache = ImageCache((self.cache or self.place_of_caches) / name, origin)
        if not cache.exists():
            self._announce(cache.folder)
            try:
                self._until_whole(cache.build, cache.folder)
            except NoRoomError as error:
                return self._in_memory(error)
        return cache.read("train"), cache.read("test")

    def _in_memory(self, error: NoRoomError) -> tuple[ImageSet, ImageSet]:
        """All pictures decoded for this process alone, where they have no place on the disk."""
        warnings.warn(f"{error}; until then every start decodes them anew, and they stay in memory", stacklevel=2)
        kept: list[ImageSet] = []
        self._until_whole(lambda splits: kept.extend([split.in_memory() for split in splits.values()]), None)
        train, test = kept
        return train, test

    def _settings(self) -> dict[str, Any]:
        """What decides the pixels beside the pictures."""
        return {"resolution": self.resolution, "channels": self.channels, "square": self.square, "format": 1}

    def _announce(self, folder: Path) -> None:
        num = len(self.listing.train) + len(self.listing.test)
        megabytes = num * self.channels * self.resolution**2 / 1e6
        before = [path.name for path in folder.parent.glob(f"decoded_{self.resolution}_*") if path.is_dir()]
        changed = f"; pictures or settings have changed since {', '.join(before)}" if before else ""
        print(f"decoding {num:,} pictures once into {folder}: {megabytes:,.1f} MB{changed}", flush=True)

    def _until_whole(self, build: Callable[[dict[str, Split]], Any], folder: Path | None) -> None:
        """Decodes all pictures, and where some are broken and may be passed over, all others.

        Raises:
            DataError: there are broken ones.
        """
        try:
            if folder is not None:
                _make(folder.parent)
            build(self._splits(frozenset()))
        except _BrokenError as error:
            if self.broken != "skip":
                raise DataError(
                    f"{error.sentence(self.name)}: put whole ones there, or pass over them by data.broken=skip"
                ) from error
            build(self._splits(error.reasons.keys()))

    def _splits(self, without: Collection[str]) -> dict[str, Split]:
        broken: dict[str, str] = {}
        parts = {"train": self.listing.train, "test": self.listing.test}
        rows = {name: _rows(part, without) for name, part in parts.items()}
        if empty := [name for name in parts if not len(rows[name])]:
            raise DataError(f"no picture of {self.name} can be read for the {' and the '.join(empty)} set")
        return {
            name: Split(
                (len(rows[name]), self.channels, self.resolution, self.resolution),
                rows[name],
                self._pixels([part[row] for row in rows[name]], broken, is_last=name == "test"),
            )
            for name, part in parts.items()
        }

    def _pixels(self, pictures: Sequence[Picture], broken: dict[str, str], is_last: bool) -> Iterator[np.ndarray]:
        """The squares, black ones for broken pictures, which are told when the last split is through."""
        console = Console(stderr=True)
        starts = range(0, len(pictures), _AT_ONCE)
        with ThreadPoolExecutor(self.num_workers, thread_name_prefix="decoder") as pool:
            for start in track(starts, f"decoding {self.name}", console=console, disable=not console.is_terminal):
                part = pictures[start : start + _AT_ONCE]
                for picture, pixels in zip(part, pool.map(self._square, part), strict=True):
                    if isinstance(pixels, str):
                        broken[picture.name] = pixels
                        pixels = np.zeros((self.channels, self.resolution, self.resolution), np.uint8)
                    yield pixels
        if is_last and broken:
            raise _BrokenError(broken)

    def _square(self, picture: Picture) -> np.ndarray | str:
        """The pixels of a picture, or why there are none."""
        try:
            return square(self.open(picture), self.resolution, self.square, self.channels)
        except Exception as error:  # a broken picture can raise anything
            return " ".join(str(error).split())[:120] or type(error).__name__

    def _labelled(self, split: str, decoded: ImageSet) -> Images:
        listed = self.listing.train if split == "train" else self.listing.test
        pictures = [listed[row] for row in decoded.labels.tolist()]
        if len(pictures) < len(listed):
            gone = {picture.name for picture in listed} - {picture.name for picture in pictures}
            warnings.warn(f"{some(sorted(gone))} of {self.name}: broken, and passed over", stacklevel=2)
        found = ImageSet(decoded.images, torch.tensor([picture.label for picture in pictures]))
        return found if self.text is None else self.captioned(split, found, [each.captions for each in pictures])


class _BrokenError(DataError):
    """Pictures that cannot be read, with the reason of each."""

    def __init__(self, reasons: dict[str, str]) -> None:
        super().__init__(", ".join(reasons))
        self.reasons = reasons

    def sentence(self, dataset: str) -> str:
        name, reason = next(iter(self.reasons.items()))
        several = f"{len(self.reasons):,} pictures" if len(self.reasons) > 1 else "a picture"
        return f"{several} of {dataset} cannot be read: {some([*self.reasons])} ({some([name])}: {reason})"


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise NoRoomError(
            f"the decoded pictures could not be written to {folder} ({error}): give another folder by data.cache=FOLDER"
        ) from error


def _rows(pictures: Sequence[Picture], without: Collection[str]) -> np.ndarray:
    return np.array([row for row, picture in enumerate(pictures) if picture.name not in without], np.int64)


def some(names: Sequence[str]) -> str:
    """`a.jpg, b.jpg, c.jpg and 4 more`."""
    shown = [name.encode(errors="surrogateescape").decode(errors="replace") for name in names[:_NAMED]]
    more = f" and {len(names) - _NAMED:,} more" if len(names) > _NAMED else ""
    return ", ".join(shown) + more
