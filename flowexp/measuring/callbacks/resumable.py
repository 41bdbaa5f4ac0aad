"""The results of a long measurement so far, on disk: stopped half-way, it continues from them."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from flowexp.measuring.metrics import ReferenceCache
from flowexp.records.files import atomic, fingerprint
from flowexp.records.files.caches import dispensable

LOST = "the measurement goes on, and begins anew if it is stopped"


@dataclass(frozen=True)
class Kept:
    """Parts of a measurement in files, each under a hash of all that decided it. A damaged file counts as missing.

    Arguments:
        folder: made at need; None keeps nothing.
        decided: what decides every part, such as the weights; plain values.
    """

    folder: Path | None
    decided: Mapping[str, Any]

    @contextmanager
    def going_on(self) -> Iterator[None]:
        """On interruption, tell the user that the same command resumes."""
        try:
            yield
        except (KeyboardInterrupt, SystemExit):
            if self.folder is not None:
                print(
                    f"\nwhat was computed is in {self.folder}: the same command continues from there", file=sys.stderr
                )
            raise

    def features(self, part: Mapping[str, Any], make: Callable[[], Tensor]) -> Tensor:
        """The rows (N, D) of a part: the stored ones, or else made and stored now."""
        if self.folder is None:
            return make()
        cache, key = ReferenceCache(self.folder), {**self.decided, **part}
        found = cache.load_features(key)
        if found is None:
            found = make()
            with dispensable(self.folder, LOST):
                cache.save_features(key, found)
        return found

    def numbers(self, part: Mapping[str, Any], make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
        """Named numbers of a part: the stored ones, to the last digit, or else made and stored now."""
        if self.folder is None:
            return make()
        path = self.folder / f"numbers_{fingerprint.of_values({**self.decided, **part})}.json"
        found = _read(path)
        if found is None:
            found = make()
            with dispensable(self.folder, LOST):
                atomic.write_json(path, found)
        return found


def _read(path: Path) -> dict[str, Any] | None:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError):
        return None
    return found if isinstance(found, dict) else None
