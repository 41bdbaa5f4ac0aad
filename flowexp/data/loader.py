"""Batches whose order is a pure function of (seed, epoch): nothing to save but a count."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.data.prefetch import ahead
from flowexp.data.sets.batch_rows import Batch, Images, Pick
from flowexp.flow.randomness import keyed_generator

_ORDER, _FLIPS = 0x0DE4, 0xF11B  # keep these streams apart from others with the same seed


@dataclass(frozen=True, eq=False)
class _Epoch:
    """One pass over the images: which row comes when, and whether it is mirrored."""

    number: int
    order: Tensor  # (rows,) int64
    flips: Tensor | None  # (rows,) bool, by place in the order


class BatchLoader:
    """An endless row of batches of images, served one pass at a time, that resumes at the next batch.

    Batch k of epoch e is rows [k B, (k + 1) B) of that epoch's order; an incomplete last batch is dropped. Process r of
    W takes the r-th of its W equal slices: the slices of all processes, concatenated, are the batch of a single
    process, flips included. From a set in memory, fetching is one gather, with no workers and no queue; one that has
    to decode or read first has its next batches prepared in another thread.

    All that has to be saved is `step`, the number of batches served. `iter` serves `len` batches from there, whatever
    happened before: after an interrupted pass too, training step s sees batch s. What Lightning takes for an epoch (one
    ended by max_steps or limit_train_batches, say) has no influence.

    By hand and not torch's DataLoader: its workers and their queue cost more than the gather that they would do. The
    state of torchdata's StatefulDataLoader belongs to a number of workers and processes, a count belongs to none.

    Arguments:
        images: the set, on the CPU (also memory-mapped) or on a device; batches stay where they are.
        batch_size: B, images per step over all processes.
        seed: of the order and the flips.
        flip: mirror each image left to right with probability 1/2.
        rank, world_size: r and W.

    Raises:
        ValueError: the batch does not divide over the processes, or is larger than the set.
    """

    def __init__(
        self,
        images: Images,
        batch_size: int,
        *,
        seed: int = 0,
        flip: bool = False,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        check_batch_size(batch_size, len(images), world_size)
        assert 0 <= rank < world_size
        self.images = images
        self.batch_size = batch_size
        self.seed = seed
        self.flip = flip
        self.rank = rank
        self.world_size = world_size
        self.step = 0
        self._arranged: _Epoch | None = None

    def __len__(self) -> int:
        """Batches in an epoch."""
        return len(self.images) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        picks = (self._pick(*divmod(step, len(self))) for step in range(self.step, self.step + len(self)))
        for batch in ahead(self.images.batch, picks, self.images.prefetch):
            # Counted before it is handed out: a checkpoint written while it is in use goes on with the next.
            self.step += 1
            yield batch

    def _pick(self, epoch: int, batch: int) -> Pick:
        if self._arranged is None or self._arranged.number != epoch:
            self._arranged = self._arrange(epoch)
        share = self.batch_size // self.world_size
        start = batch * self.batch_size + self.rank * share
        place, flips = slice(start, start + share), self._arranged.flips
        return Pick(self._arranged.order[place], None if flips is None else flips[place], self.seed, epoch)

    def _arrange(self, epoch: int) -> _Epoch:
        rows, device = len(self.images), self.images.device
        order = torch.randperm(rows, generator=keyed_generator(self.seed, _ORDER, epoch)).to(device)
        flips = None
        if self.flip:
            flips = (torch.rand(rows, generator=keyed_generator(self.seed, _FLIPS, epoch)) < 0.5).to(device)
        return _Epoch(epoch, order, flips)

    def state_dict(self) -> dict[str, int]:
        """The number of batches served, the same on every process, and what gives it its meaning."""
        return {"step": self.step, **self._meaning()}

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:
        """Goes on where a state was saved; the number of processes may have changed since.

        Raises:
            ValueError: the state was saved with another seed, batch size or number of images.
        """
        for name, here in self._meaning().items():
            if state_dict[name] != here:
                raise ValueError(
                    f"the checkpoint's place in the data belongs to {name}={state_dict[name]}, this run has {here}: "
                    "resume with the same data settings, or start a new run"
                )
        self.step = state_dict["step"]

    def _meaning(self) -> dict[str, int]:
        return {"seed": self.seed, "batch_size": self.batch_size, "train_size": len(self.images)}


def check_batch_size(batch_size: int, rows: int, world_size: int) -> None:
    """Raises ValueError for a batch that `rows` images are too few for, or that `world_size` processes cannot share."""
    if batch_size % world_size:
        raise ValueError(
            f"batch_size counts the images of all processes and must divide over {world_size} of them, got {batch_size}"
        )
    if batch_size > rows:
        raise ValueError(f"batch_size must be at most the {rows} training images, got {batch_size}: lower it")
