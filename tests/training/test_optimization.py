"""Optimizers made for named parameters, AdamW as in LCF A.4.2 by default, and clipping."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import nn
from torch.nn import Parameter

from flowexp.training.optimization import ADAMW, check_optimizer, clip_gradients, create_optimizer, describe_optimizer


def test_a_step_of_the_default_is_adamw_with_decoupled_weight_decay() -> None:
    ours, reference = Parameter(torch.tensor([1.0, -2.0])), Parameter(torch.tensor([1.0, -2.0]))
    optimizer = create_optimizer(ADAMW, [("ours", ours)])
    expected = torch.optim.AdamW([reference], lr=1e-4, weight_decay=0.01, fused=False, foreach=False)
    for _ in range(3):
        for parameter, stepper in ((ours, optimizer), (reference, expected)):
            parameter.grad = parameter.detach() ** 2
            stepper.step()
    torch.testing.assert_close(ours, reference)


def test_only_what_is_trained_reaches_the_optimizer() -> None:
    frozen, trained = Parameter(torch.zeros(1), requires_grad=False), Parameter(torch.zeros(1))
    (group,) = create_optimizer(partial(torch.optim.SGD, lr=0.1), [("a", frozen), ("b", trained)]).param_groups
    assert group["params"] == [trained]


def test_an_optimizer_that_takes_names_gets_them() -> None:
    def by_name(named_parameters: list[tuple[str, Parameter]]) -> torch.optim.Optimizer:
        return torch.optim.SGD([p for name, p in named_parameters if "weight" in name], lr=0.1)

    (group,) = create_optimizer(by_name, nn.Linear(2, 2).named_parameters()).param_groups
    assert [p.ndim for p in group["params"]] == [2]


def three_and_four() -> list[Parameter]:
    parameters = [Parameter(torch.zeros(1)), Parameter(torch.zeros(1))]
    parameters[0].grad, parameters[1].grad = torch.tensor([3.0]), torch.tensor([4.0])
    return parameters


@pytest.mark.parametrize(
    ("limit", "algorithm", "after"),
    [
        (1.0, None, [0.6, 0.8]), (1.0, "norm", [0.6, 0.8]), (100.0, "norm", [3, 4]), (None, None, [3, 4]),
        (0, None, [3, 4]), (3.5, "value", [3, 3.5]),
    ],
)  # fmt: skip
def test_clipping_limits_the_norm_or_each_value_and_returns_the_norm(limit, algorithm, after) -> None:
    parameters = three_and_four()
    assert float(clip_gradients(parameters, limit, algorithm)) == pytest.approx(5.0)
    assert [float(p.grad) for p in parameters] == pytest.approx(after, rel=1e-5)


def test_clipping_is_torchs_bit_for_bit() -> None:
    ours, theirs = (nn.Linear(7, 5), nn.Linear(7, 5))
    for one, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        one.grad = torch.randn_like(one)
        other.grad = one.grad.clone()
    norms = clip_gradients(ours.parameters(), 0.3), nn.utils.clip_grad_norm_(theirs.parameters(), 0.3)
    assert torch.equal(*norms)
    assert all(torch.equal(a.grad, b.grad) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (partial(torch.optim.AdamW, lr=0), "optimizer.lr must be positive, got 0"),
        (partial(torch.optim.AdamW, betas=(2, 0)), "the optimizer cannot be made with .*: Invalid beta"),
        (partial(torch.optim.SGD, rho=1), "the optimizer cannot be made with .*: .*rho"),
        (partial(torch.optim.Muon), "the optimizer cannot be made with .*: Muon only supports 2D"),
    ],
)
def test_what_an_optimizer_refuses_is_known_without_a_network(make, words: str) -> None:
    with pytest.raises(ValueError, match=words):
        check_optimizer(make)


def test_an_optimizer_is_described_by_its_numbers() -> None:
    assert describe_optimizer(ADAMW) == "AdamW, lr 0.0001, weight decay 0.01"
    assert describe_optimizer(torch.optim.SGD) == "SGD"
