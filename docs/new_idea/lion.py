"""An optimizer of one's own: Lion, the sign of a momentum (Chen et al. 2023)."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer


class Lion(Optimizer):
    """w <- (1 - lr weight_decay) w - lr sign(b1 m + (1 - b1) g), then m <- b2 m + (1 - b2) g.

    Arguments:
        params: what is trained; flowexp gives it.
        lr: learning rate, about a tenth of AdamW's.
        betas: b1 and b2.
        weight_decay: decoupled weight decay.
    """

    def __init__(
        self,
        params: Iterable[Tensor],
        lr: float = 1.0e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for weight in (weight for weight in group["params"] if weight.grad is not None):
                self._update(weight, weight.grad, group)
        return loss

    def _update(self, weight: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
        first, second = group["betas"]
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        weight.sub_(group["lr"] * torch.lerp(gradient, momentum, first).sign())
        momentum.lerp_(gradient, 1 - second)
