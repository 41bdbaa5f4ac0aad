"""The moment from which on a training changes its folder."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning import Callback


class BeforeFirstBatch(Callback):
    """Calls a function once, when all that can be refused has been passed and the first batch is there.

    By then the checkpoint is restored, its folder has room, and the data can be read.

    Arguments:
        begin: takes the trainer, on every process.
    """

    def __init__(self, begin: Callable[[pl.Trainer], None]) -> None:
        self._begin: Callable[[pl.Trainer], None] | None = begin

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if self._begin is not None:
            self._begin(trainer)
            self._begin = None
