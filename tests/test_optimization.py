"""AdamW, warm-up and clipping as LCF A.4.2 and Table 2."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from flowexp.optimization import Optimization


def test_the_learning_rate_rises_linearly_and_stays() -> None:
    optimizer, lr_schedule = Optimization(lr=0.4, warmup_steps=4).create([nn.Parameter(torch.zeros(1))])
    rates = []
    for _ in range(6):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        lr_schedule.step()
    assert rates == pytest.approx([0.1, 0.2, 0.3, 0.4, 0.4, 0.4])


def test_warm_up_epochs_become_steps() -> None:
    assert Optimization(warmup_epochs=13).in_steps(195).warmup_steps == 13 * 195  # LCF Table 2 on CIFAR-10 at batch 256
    assert Optimization(warmup_steps=7).in_steps(195).warmup_steps == 7


def test_a_step_is_adamw_with_decoupled_weight_decay() -> None:
    ours, reference = nn.Parameter(torch.tensor([1.0, -2.0])), nn.Parameter(torch.tensor([1.0, -2.0]))
    optimizer, _ = Optimization(lr=0.1, weight_decay=0.5).create([ours])
    expected = torch.optim.AdamW([reference], lr=0.1, weight_decay=0.5, fused=False, foreach=False)
    for _ in range(3):
        for parameter, stepper in ((ours, optimizer), (reference, expected)):
            parameter.grad = parameter.detach() ** 2
            stepper.step()
    torch.testing.assert_close(ours, reference)


@pytest.mark.parametrize(("clip_norm", "norm_after"), [(1.0, 1.0), (100.0, 5.0), (None, 5.0)])
def test_clipping_limits_the_global_norm_and_returns_it(clip_norm: float | None, norm_after: float) -> None:
    parameters = [nn.Parameter(torch.zeros(1)), nn.Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    assert float(Optimization(clip_norm=clip_norm).clip(parameters)) == pytest.approx(5.0)
    assert float(torch.cat([p.grad for p in parameters]).norm()) == pytest.approx(norm_after, rel=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [{"lr": 0}, {"clip_norm": -1}, {"warmup_steps": -1}, {"ema_decay": 1.0}, {"warmup_steps": 5, "warmup_epochs": 1}],
)
def test_wrong_numbers_are_refused_with_their_key(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"optimizer.{next(iter(wrong))}.*got"):
        Optimization(**wrong)
