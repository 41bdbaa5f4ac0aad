"""The moments of a dataset's features on disk: computed once for each dataset and encoder."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from flowexp.metrics.moments import Moments


def fingerprint(images: Tensor) -> str:
    """16 hexadecimal digits that identify the pixels of uint8 `images` (N, C, H, W), and their order and shape."""
    digest = hashlib.blake2b(str(tuple(images.shape)).encode(), digest_size=8)
    digest.update(images.cpu().contiguous().numpy().data)
    return digest.hexdigest()


@dataclass(frozen=True)
class ReferenceCache:
    """Files of moments in `folder`, each named by a hash of all that decided it.

    A file is written whole or not at all. One that is damaged counts as missing.
    """

    folder: Path

    def path(self, key: Mapping[str, Any]) -> Path:
        """Where the moments described by `key`, plain values, lie or would lie."""
        digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        return self.folder / f"moments_{digest}.safetensors"

    def load(self, key: Mapping[str, Any]) -> Moments | None:
        """The moments saved under `key`, or None."""
        try:
            with safe_open(self.path(key), "pt") as file:
                mean, covariance = file.get_tensor("mean"), file.get_tensor("covariance")
                return Moments(mean, covariance, int(file.get_tensor("count")))
        except (OSError, SafetensorError):
            return None

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
            save_file(tensors, file, metadata={"key": json.dumps(key, sort_keys=True)})
            os.replace(file, self.path(key))
