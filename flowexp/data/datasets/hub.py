"""Datasets in the format of Hugging Face's `datasets`: of its hub, of its cache, or of a folder."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

from flowexp.data.datasets.picture_folder import HELD_OUT, TRAIN, held_out
from flowexp.data.decoded import Decoded, Listing, Picture
from flowexp.data.errors import INSTEAD, DataError
from flowexp.data.storage.picture_files import COLUMNS

if TYPE_CHECKING:
    from datasets import Dataset, DatasetDict

_IMAGES, _LABELS = ("image", "img", "picture"), ("label", "labels", "fine_label")  # columns, the first that is there


class HubDataset(Decoded):
    """Pictures of a dataset of `datasets`, whose columns are known by their kinds: an Image, a ClassLabel, a text.

    `name` is one of the hub, whose files `datasets` keeps in a cache of its own, a folder that `save_to_disk`
    wrote, or one of Parquet files or pictures as `load_dataset` reads it. The split `train` is trained on and
    `validation` or `test` held out; without one, `val_fraction` of the rows. No dataset runs code.

    Arguments:
        name: what is loaded; the dataset's own name is its last part.
        config: a configuration of the dataset, where it has several.
        revision: a certain version of it; None is the newest.
        image, label, caption: names of the columns; None finds them.
        val_fraction: of the rows that is held out, between 0 and 1, where there is one split only.
        others: see Decoded and ImageDataModule.

    Raises:
        ValueError: a number out of range, or an unknown word.
    """

    name = "hub"

    def __init__(
        self,
        name: str,
        *,
        config: str | None = None,
        revision: str | None = None,
        image: str | None = None,
        label: str | None = None,
        caption: str | None = None,
        val_fraction: float = 0.1,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        if not 0 < val_fraction < 1:
            raise ValueError(f"data.val_fraction must lie between 0 and 1, got {val_fraction}")
        self.source = name
        self.config = config
        self.revision = revision
        self.columns = {"image": image, "label": label, "caption": caption}
        self.val_fraction = val_fraction
        self.name = Path(name).name

    def list_pictures(self) -> Listing:
        names = self._class_names()
        parts = [split for split in (TRAIN, *HELD_OUT) if split in self._tables]
        rows = {split: [f"{split}/{row}" for row in range(len(self._tables[split]))] for split in parts[:2]}
        if len(parts) > 1:
            train, test = rows.values()
        else:
            train, test = held_out(rows[TRAIN], self.val_fraction, lambda name: "")
        return Listing(self._listed(train), self._listed(test), names)

    @cached_property
    def _tables(self) -> DatasetDict:
        """All splits, with the files of pictures not decoded.

        Raises:
            DataError: `datasets` is not installed, or has no such dataset, or cannot reach it.
        """
        try:
            from datasets import DatasetDict
        except ImportError as error:
            raise DataError("data=hub needs the package datasets: pip install 'flowexp[hub]'") from error
        found = self._load()
        splits = found if isinstance(found, DatasetDict) else DatasetDict({TRAIN: found})
        if TRAIN not in splits:
            raise DataError(f"{self.source} must have a split {TRAIN}, got {', '.join(map(str, splits))}")
        return splits

    def _load(self) -> Any:
        import datasets

        folder = Path(self.source).expanduser()
        try:
            if (folder / "dataset_dict.json").is_file() or (folder / "dataset_info.json").is_file():
                return datasets.load_from_disk(str(folder))
            return datasets.load_dataset(self.source, self.config, revision=self.revision)
        except Exception as error:  # of a dozen packages below: no such name, no network, a damaged file
            reason = " ".join(str(error).split())[:200] or type(error).__name__
            raise DataError(
                f"the dataset {self.source} cannot be loaded ({reason}): check data.name and the network, give a "
                f"folder that save_to_disk wrote, {INSTEAD}"
            ) from error

    def _column(self, kind: str, known: Sequence[str], is_of_kind: Any) -> str | None:
        """The column that was named, else one of the right kind and a known name, else the first of the kind."""
        features = self._tables[TRAIN].features
        if (named := self.columns[kind]) is not None:
            if named not in features:
                raise DataError(f"{self.source} has no column {named}: it has {', '.join(features)} (data.{kind})")
            return named
        of_kind = [name for name, feature in features.items() if is_of_kind(feature)]
        return next((name for name in known if name in of_kind), of_kind[0] if of_kind else None)

    def _class_names(self) -> tuple[str, ...]:
        tables = self._tables  # says it where `datasets` is not installed
        from datasets import ClassLabel

        column = self._column("label", _LABELS, lambda feature: isinstance(feature, ClassLabel))
        feature = None if column is None else tables[TRAIN].features[column]
        if column is not None and not isinstance(feature, ClassLabel):
            raise DataError(f"the column {column} of {self.source} must be a ClassLabel, got {feature} (data.label)")
        self._label = column
        return () if feature is None else tuple(feature.names)

    def _listed(self, names: Sequence[str]) -> list[Picture]:
        labels = {split: self._values(split, self._label) for split in self._tables}
        captions = {split: self._values(split, self._caption) for split in self._tables}
        listed = []
        for name in names:
            split, row = _place(name)
            said = captions[split][row] if captions[split] else ()
            several = [said] if isinstance(said, str) else said or ()
            label = labels[split][row] if labels[split] else 0
            listed.append(Picture(name, int(label), tuple(text.strip() for text in several if text and text.strip())))
        return listed

    @cached_property
    def _caption(self) -> str | None:
        """The column of captions, texts or lists of them; None where nobody reads them."""
        return None if self.text is None else self._column("caption", COLUMNS, _is_text)

    def _values(self, split: str, column: str | None) -> list[Any]:
        return [] if column is None else list(self._tables[split][column])

    @cached_property
    def _image(self) -> str:
        """The column of pictures."""
        from datasets import Image as Feature

        column = self._column("image", _IMAGES, lambda feature: isinstance(feature, Feature))
        if column is None:
            known = ", ".join(self._tables[TRAIN].features)
            raise DataError(f"{self.source} has no column of pictures: it has {known}; choose another dataset")
        return column

    @cached_property
    def _pictures(self) -> dict[str, Dataset]:
        """The column of pictures of each split, as bytes or paths."""
        from datasets import Image as Feature

        columns = {split: rows.select_columns(self._image) for split, rows in self._tables.items()}
        return {split: rows.cast_column(self._image, Feature(decode=False)) for split, rows in columns.items()}

    def open(self, picture: Picture) -> Image.Image:
        split, row = _place(picture.name)
        stored = self._pictures[split][row][self._image]
        content = stored["bytes"] if stored["bytes"] is not None else Path(stored["path"]).read_bytes()
        return Image.open(io.BytesIO(content))

    def identity(self, listing: Listing) -> str:
        """The fingerprints of `datasets`, which follow the contents of the files, the column, and the split."""
        prints = [str(rows._fingerprint) for rows in self._tables.values()]
        return " ".join([*prints, self._image, *map(str, self._pictures), str(len(listing.train))])

    def where_captions_go(self) -> str:
        return "name the column by data.caption, or choose data=hub, without captions"


def _place(name: str) -> tuple[str, int]:
    split, _, row = name.rpartition("/")
    return split, int(row)


def _is_text(feature: Any) -> bool:
    inner = getattr(feature, "feature", feature[0] if isinstance(feature, list) and feature else feature)
    return getattr(inner, "dtype", None) in ("string", "large_string")
