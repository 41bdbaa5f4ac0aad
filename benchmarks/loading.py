"""What the data cost: a batch from the loader, made in the training process, against a training step."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.data import enlarged_digits
from benchmarks.sizes import Size
from benchmarks.steps import Training
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison, stopwatch
from flowexp.data import Batch, BatchLoader, to_float


def loader(size: Size, rounds: int) -> Result:
    """A batch from the loader (gather, flips, to float), against an FM step of 12 x 384 x 6 on that batch.

    The loader has no workers: its time is all that training ever waits for data. "Never waited for" is read as at most
    one hundredth of a step. The images number as many as CIFAR-10's and lie on the training device.
    """
    images = enlarged_digits(size).train.to(size.device)
    batches = endless(BatchLoader(images, size.batch_size, flip=True))
    contestants = {
        "FM step": stopwatch(Training.of(size).fm_step(), size.device, size.steps),
        "batch": stopwatch(lambda: to_float(next(batches)["image"]), size.device, repeats=20),
    }
    timings = Comparison(contestants).run(rounds)
    return Result([compare(timings, "batch", "FM step", Promise(0.01))])


def endless(batches: BatchLoader) -> Iterator[Batch]:
    """One pass after another."""
    while True:
        yield from batches
