"""What metrics need of a dataset, on disk: moments and features, computed once for each dataset and encoder."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.measuring.metrics.collecting import Needs, Statistics
from flowexp.measuring.metrics.moments import Moments
from flowexp.records.files import atomic, fingerprint
from flowexp.records.files.caches import dispensable
from flowexp.records.files.npy import write_npy

BATCH = 8192
LOST = "the statistics are used and computed anew next time; let callbacks.frechet.cache be another folder"


@dataclass(frozen=True)
class ReferenceCache:
    """Files of moments and of features in `folder`, each named by a hash of all that decided it.

    A file is written whole or not at all. One whose content has another fingerprint than it had is damaged and counts
    as missing. Where nothing can be written, `save_statistics` warns.

    Arguments:
        folder: made at need.
        dtype: of stored features, float32, or float16 for half the room: N x D x 4 or x 2 bytes. In float16 distances
            are off by about 1e-4 of themselves; it is part of the hash.

    Raises:
        ValueError: another dtype.
    """

    folder: Path
    dtype: str = "float32"

    def __post_init__(self) -> None:
        check_choice("dtype of stored features", self.dtype, ("float32", "float16"))

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the moments described by `key`, plain values, lie or would lie."""
        return self.folder / f"moments_{fingerprint.of_values(dict(key))}.safetensors"

    def features_path(self, key: Mapping[str, Any]) -> Path:
        """Where the features described by `key` lie or would lie."""
        return self.folder / f"features_{fingerprint.of_values({**key, 'dtype': self.dtype})}.npy"

    def load(self, key: Mapping[str, Any]) -> Moments | None:
        """The moments saved under `key`, or None."""
        try:
            with safe_open(self.path(key), "pt") as file:
                mean, covariance, count = (file.get_tensor(name) for name in ("mean", "covariance", "count"))
                expected = (file.metadata() or {}).get("fingerprint")
        except (OSError, SafetensorError):
            return None
        is_sound = expected == fingerprint.of_content(mean, covariance, count)
        return Moments(mean, covariance, int(count)) if is_sound else None

    def save(self, key: Mapping[str, Any], moments: Moments) -> None:
        """Writes `moments` with `key` beside them, for people to read."""
        mean, covariance, count = moments.mean.cpu(), moments.covariance.cpu(), torch.tensor(moments.count)
        fingerprint_of_all = fingerprint.of_content(mean, covariance, count)
        about = {"key": json.dumps(key, sort_keys=True), "fingerprint": fingerprint_of_all}
        content = save({"mean": mean, "covariance": covariance, "count": count}, metadata=about)
        atomic.remove_leftovers(self.path(key))
        with atomic.replacing(self.path(key)) as partial:
            partial.write_bytes(content)

    def load_features(self, key: Mapping[str, Any]) -> Tensor | None:
        """The features (N, D) saved under `key`, mapped from their file: read only where they are used. Or None."""
        path = self.features_path(key)
        try:
            mapped = np.load(path, mmap_mode="c")  # "c": torch wants to be able to write
            expected = json.loads(path.with_suffix(".json").read_text())["fingerprint"]
        except (OSError, ValueError, EOFError, KeyError, TypeError):
            return None
        features = torch.from_numpy(mapped)
        return features if expected == fingerprint.of_content(features) else None

    def save_features(self, key: Mapping[str, Any], features: Tensor) -> None:
        """Writes `features` (N, D) in batches, and `key` and their fingerprint in a .json of the same name."""
        path, dtype = self.features_path(key), np.dtype(self.dtype)
        parts = (rows.cpu().numpy().astype(dtype) for rows in features.split(BATCH))
        atomic.remove_leftovers(path)
        with atomic.replacing(path) as partial:
            write_npy(partial, features.shape, dtype.type, parts)
            fingerprint_of_all = fingerprint.of_content(torch.from_numpy(np.load(partial, mmap_mode="c")))
        about = json.dumps({"key": dict(key), "fingerprint": fingerprint_of_all}, sort_keys=True, indent=2)
        atomic.write_text(path.with_suffix(".json"), about + "\n")

    def note_pixels(self, key: Mapping[str, Any], pixels: str) -> None:
        """Keeps what identifies all pixels of the images described by `key`, now that they were read.

        Warns where others were read before: the `key` of a large set covers a sample of its files.
        """
        path = self.folder / f"pixels_{fingerprint.of_values(dict(key))}.json"
        before = _pixels_in(path)
        if before not in (None, pixels):
            warnings.warn(
                f"some of the reference's pictures have changed since {path.absolute()} was written, though their "
                "names, sizes and a sample of their files have not: delete the statistics beside it, which may be of "
                "the earlier ones",
                stacklevel=2,
            )
        if before != pixels:
            with dispensable(self.folder, LOST):
                atomic.write_json(path, {"key": dict(key), "pixels": pixels})

    def load_statistics(self, key: Mapping[str, Any], needs: Needs) -> Statistics | None:
        """All that is needed of the set of images described by `key`, or None where a part is missing."""
        moments = {name: self.load(_of_output(key, name)) for name in needs.moments}
        features = self.load_features(key) if needs.features else None
        if any(found is None for found in moments.values()) or (needs.features and features is None):
            return None
        return Statistics({name: found for name, found in moments.items() if found is not None}, features)

    def save_statistics(self, key: Mapping[str, Any], statistics: Statistics) -> None:
        """Writes the moments and features of `statistics` under `key`; warns where there is no room or permission."""
        with dispensable(self.folder, LOST):
            for name, moments in statistics.moments.items():
                self.save(_of_output(key, name), moments)
            if statistics.features is not None:
                self.save_features(key, statistics.features)


def _pixels_in(path: Path) -> str | None:
    try:
        return str(json.loads(path.read_text())["pixels"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _of_output(key: Mapping[str, Any], output: str) -> dict[str, Any]:
    return dict(key) if output == "features" else {**key, "output": output}
