"""What metrics need of a dataset, on disk: moments and features, computed once for each dataset and encoder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flowexp.metrics.collecting import Needs, Statistics
from flowexp.metrics.moments import Moments

BATCH = 8192


@dataclass(frozen=True)
class ReferenceCache:
    """Files of moments and of features in `folder`, each named by a hash of all that decided it.

    A file is written whole or not at all. One that is damaged, by the digest of its content, counts as missing.

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
        if self.dtype not in ("float32", "float16"):
            raise ValueError(f"features are stored as float32 or float16, got {self.dtype!r}")

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the moments described by `key`, plain values, lie or would lie."""
        return self.folder / f"moments_{_digest(key)}.safetensors"

    def features_path(self, key: Mapping[str, Any]) -> Path:
        """Where the features described by `key` lie or would lie."""
        return self.folder / f"features_{_digest({**key, 'dtype': self.dtype})}.npy"

    def load(self, key: Mapping[str, Any]) -> Moments | None:
        """The moments saved under `key`, or None."""
        try:
            with safe_open(self.path(key), "pt") as file:
                mean, covariance, count = (file.get_tensor(name) for name in ("mean", "covariance", "count"))
                digest = (file.metadata() or {}).get("digest")
        except (OSError, SafetensorError):
            return None
        return Moments(mean, covariance, int(count)) if digest == _digest_of(mean, covariance, count) else None

    def save(self, key: Mapping[str, Any], moments: Moments) -> None:
        """Writes `moments` with `key` beside them, for people to read."""
        self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {
            "mean": moments.mean.cpu(),
            "covariance": moments.covariance.cpu(),
            "count": torch.tensor(moments.count),
        }
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            file = Path(aside) / "moments"
            digest = _digest_of(*tensors.values())
            save_file(tensors, file, metadata={"key": json.dumps(key, sort_keys=True), "digest": digest})
            os.replace(file, self.path(key))

    def load_features(self, key: Mapping[str, Any]) -> Tensor | None:
        """The features (N, D) saved under `key`, mapped from their file: read only where they are used. Or None."""
        path = self.features_path(key)
        try:
            mapped = np.load(path, mmap_mode="c")  # "c": torch wants to be able to write
            expected = json.loads(path.with_suffix(".json").read_text())["digest"]
        except (OSError, ValueError, EOFError, KeyError):
            return None
        features = torch.from_numpy(mapped)
        return features if expected == _digest_of(features) else None

    def save_features(self, key: Mapping[str, Any], features: Tensor) -> None:
        """Writes `features` (N, D) in batches, and in a file of the same name that ends in .json `key` and a digest."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.features_path(key)
        with tempfile.TemporaryDirectory(dir=self.folder) as aside:
            file = Path(aside) / "features.npy"
            shape = (features.shape[0], features.shape[1])
            mapped = np.lib.format.open_memmap(file, "w+", dtype=np.dtype(self.dtype), shape=shape)
            for start in range(0, len(features), BATCH):
                mapped[start : start + BATCH] = features[start : start + BATCH].cpu().numpy()
            mapped.flush()
            about = {"key": dict(key), "digest": _digest_of(torch.from_numpy(mapped))}
            path.with_suffix(".json").write_text(json.dumps(about, sort_keys=True, indent=2) + "\n")
            os.replace(file, path)

    def load_statistics(self, key: Mapping[str, Any], needs: Needs) -> Statistics | None:
        """All that is needed of the set of images described by `key`, or None where a part is missing."""
        moments = {name: self.load(_of_output(key, name)) for name in needs.moments}
        features = self.load_features(key) if needs.features else None
        if any(found is None for found in moments.values()) or (needs.features and features is None):
            return None
        return Statistics({name: found for name, found in moments.items() if found is not None}, features)

    def save_statistics(self, key: Mapping[str, Any], statistics: Statistics) -> None:
        """Writes the moments and features of `statistics` under `key`."""
        for name, moments in statistics.moments.items():
            self.save(_of_output(key, name), moments)
        if statistics.features is not None:
            self.save_features(key, statistics.features)


def _digest_of(*tensors: Tensor) -> str:
    """16 hexadecimal digits of the content, read in batches: 1 s per GB."""
    digest = hashlib.blake2b(digest_size=8)
    for tensor in tensors:
        for rows in tensor.reshape(max(1, len(tensor)) if tensor.ndim else 1, -1).split(BATCH):
            digest.update(rows.contiguous().numpy().data)
    return digest.hexdigest()


def _digest(key: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(dict(key), sort_keys=True).encode()).hexdigest()[:16]


def _of_output(key: Mapping[str, Any], output: str) -> dict[str, Any]:
    return dict(key) if output == "features" else {**key, "output": output}
