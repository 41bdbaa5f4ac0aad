"""How the learning rate changes over a run: a factor of the optimizer's rate at each optimizer step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

MakeSchedule = Callable[..., Any]
RUN = "run"  # of a schedule that depends on the length of the run


@dataclass(frozen=True)
class RunLength:
    """How long a run is.

    Arguments:
        steps_per_epoch: optimizer steps in one pass over the training images.
        total_steps: optimizer steps of the whole run; None is a run without an end.
    """

    steps_per_epoch: int
    total_steps: int | None = None


def create_schedule(make: MakeSchedule, optimizer: Optimizer, length: Callable[[], RunLength]) -> dict[str, Any]:
    """What Lightning takes for a schedule, advanced after each optimizer step unless `make` sets another interval.

    Arguments:
        make: from the optimizer to a scheduler of torch, or to Lightning's mapping of one (`scheduler`, `interval`,
            `frequency`, `monitor`); one whose signature has `run` gets the `RunLength`.
        optimizer: whose learning rate is scheduled.
        length: gives the length of the run, where it is needed.
    """
    needed = {RUN: length()} if RUN in inspect.signature(make).parameters else {}
    made = make(optimizer, **needed)
    return {"interval": "step", **(made if isinstance(made, Mapping) else {"scheduler": made})}


def constant(optimizer: Optimizer) -> LambdaLR:
    """The optimizer's rate at every step."""
    return LambdaLR(optimizer, lambda step: 1.0)


def warmup(optimizer: Optimizer, run: RunLength, warmup_steps: int = 0, warmup_epochs: float = 0) -> LambdaLR:
    """Rises linearly from lr / n to lr over the first n optimizer steps, and stays there.

    Arguments:
        optimizer: whose rate it is.
        run: how long the run is.
        warmup_steps: n.
        warmup_epochs: n in epochs (LCF Table 2: 13). Give one of the two.
    """
    rise = steps_of(run, warmup_steps, warmup_epochs)
    return LambdaLR(optimizer, lambda step: rising(step, rise))


def cosine(
    optimizer: Optimizer,
    run: RunLength,
    warmup_steps: int = 0,
    warmup_epochs: float = 0,
    num_steps: int | None = None,
    num_epochs: float | None = None,
    final_share: float = 0.0,
) -> LambdaLR:
    """A linear warm-up, and half a cosine from lr to final_share lr, which is reached at the end and stays.

    Arguments:
        optimizer: whose rate it is.
        run: how long the run is.
        warmup_steps, warmup_epochs: of the warm-up, see `warmup`.
        num_steps, num_epochs: where the cosine ends, in optimizer steps or epochs; None for both is the run's end.
        final_share: the rate at the end as a share of lr.
    """
    rise, end = steps_of(run, warmup_steps, warmup_epochs), _end_of(run, num_steps, num_epochs)
    if not 0 <= final_share <= 1:
        raise ValueError(f"lr_schedule.final_share must lie in [0, 1], got {final_share}")
    if end <= rise:
        raise ValueError(f"lr_schedule ends after {end} steps, and its warm-up takes {rise}: shorten the warm-up")

    def factor(step: int) -> float:
        falling = min(1.0, max(0.0, (step - rise) / (end - rise)))
        return rising(step, rise) * (final_share + (1 - final_share) * (1 + math.cos(math.pi * falling)) / 2)

    return LambdaLR(optimizer, factor)


def rising(step: int, warmup_steps: int) -> float:
    """The factor of a linear warm-up at optimizer step `step`, from 0."""
    return min(1.0, (step + 1) / max(1, warmup_steps))


def steps_of(run: RunLength, warmup_steps: int, warmup_epochs: float) -> int:
    """The length of a warm-up in optimizer steps. Raises ValueError where it is negative or given twice."""
    if warmup_steps < 0:
        raise ValueError(f"lr_schedule.warmup_steps must be at least 0, got {warmup_steps}")
    if warmup_epochs < 0 or (warmup_epochs and warmup_steps):
        raise ValueError(
            "give lr_schedule.warmup_steps or lr_schedule.warmup_epochs, at least 0, and 0 for the other; "
            f"got {warmup_steps} and {warmup_epochs}"
        )
    return round(warmup_epochs * run.steps_per_epoch) or warmup_steps


def _end_of(run: RunLength, num_steps: int | None, num_epochs: float | None) -> int:
    if num_steps is not None and num_epochs is not None:
        raise ValueError(f"give lr_schedule.num_steps or num_epochs, got {num_steps} and {num_epochs}")
    end = run.total_steps if num_steps is None else num_steps
    end = round(num_epochs * run.steps_per_epoch) if num_epochs is not None else end
    if end is None or end < 1:
        raise ValueError(f"lr_schedule needs an end of at least 1 step, got {end}: give num_steps or trainer.max_steps")
    return end
