"""Schedules of the learning rate, in steps and in epochs."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from torch.nn import Parameter

from flowexp.training.lr_schedules import RunLength, constant, cosine, create_schedule, warmup

EPOCHS = RunLength(steps_per_epoch=4, total_steps=12)


def rates(make, num_steps: int, run: RunLength = EPOCHS, lr: float = 0.4) -> list[float]:
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=lr)
    schedule = create_schedule(make, optimizer, lambda: run)["scheduler"]
    found = []
    for _ in range(num_steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def test_a_constant_rate_is_the_optimizers() -> None:
    assert rates(constant, 3) == [0.4, 0.4, 0.4]


def test_a_warm_up_rises_linearly_and_stays() -> None:
    expected = pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])
    assert rates(partial(warmup, warmup_steps=4), 6) == expected
    assert rates(partial(warmup, warmup_epochs=1), 6) == expected


def test_warm_up_epochs_become_steps() -> None:
    """LCF Table 2: 13 epochs, of 195 steps on CIFAR-10 at batch 256."""
    found = rates(partial(warmup, warmup_epochs=13), 13 * 195 + 1, RunLength(195), lr=1.0)
    assert found[0] == 1 / (13 * 195) and found[-3] < 1 and found[-2:] == [1, 1]


def test_a_cosine_falls_to_its_share_at_the_end_and_stays() -> None:
    found = rates(partial(cosine, warmup_steps=2, final_share=0.1), 14, lr=1.0)
    assert found[:2] == [0.5, 1.0]
    assert found[2:12] == pytest.approx([0.1 + 0.9 * (1 + math.cos(math.pi * k / 10)) / 2 for k in range(10)])
    assert found[12:] == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize("end", [{"num_steps": 8}, {"num_epochs": 2}])
def test_a_cosine_may_end_before_the_run(end: dict) -> None:
    assert rates(partial(cosine, **end), 9, lr=1.0)[4::4] == pytest.approx([0.5, 0.0])


def test_a_schedule_of_torch_and_lightnings_own_keys_are_taken() -> None:
    optimizer = torch.optim.SGD([Parameter(torch.zeros(1))], lr=1.0)
    step = partial(torch.optim.lr_scheduler.StepLR, step_size=2)
    assert create_schedule(step, optimizer, lambda: EPOCHS)["interval"] == "step"
    made = create_schedule(lambda o: {"scheduler": step(o), "interval": "epoch"}, optimizer, lambda: EPOCHS)
    assert made["interval"] == "epoch" and isinstance(made["scheduler"], torch.optim.lr_scheduler.StepLR)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(warmup, warmup_steps=-1), "lr_schedule.warmup_steps must be at least 0, got -1"),
        (partial(warmup, warmup_steps=5, warmup_epochs=1), "and 0 for the other; got 5 and 1"),
        (partial(cosine, final_share=1.5), r"lr_schedule.final_share must lie in \[0, 1\], got 1.5"),
        (partial(cosine, num_steps=3, num_epochs=1), "give lr_schedule.num_steps or num_epochs"),
        (partial(cosine, warmup_steps=12), "ends after 12 steps, and its warm-up takes 12"),
    ],
)
def test_wrong_numbers_are_refused_with_their_key(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        rates(make, 1)


def test_a_cosine_of_a_run_without_an_end_is_refused() -> None:
    with pytest.raises(ValueError, match=r"give num_steps or trainer\.max_steps"):
        rates(cosine, 1, RunLength(4))
