"""How the weights are updated: AdamW, a linear warm-up, gradient clipping and the EMA's decay, as plain numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.optim import AdamW
from torch.optim.lr_scheduler import LambdaLR


@dataclass(frozen=True)
class Optimization:
    """AdamW with the settings of LCF Table 2 and section A.4.2.

    Arguments:
        lr: learning rate after the warm-up.
        weight_decay: decoupled weight decay on every parameter (LCF: 0.01; SiT: 0).
        betas: AdamW's averaging rates.
        clip_norm: largest global gradient norm; None never clips (SiT).
        warmup_steps: optimizer steps over which the learning rate rises linearly from lr / warmup_steps to lr.
        warmup_epochs: the same in epochs (LCF Table 2: 13); `in_steps` turns it into steps. Give one of the two.
        ema_decay: decay of the exponential moving average of the weights.
        ema_warmup: let the decay rise as (1 + n) / (10 + n), so that short runs do not average their initial weights.
    """

    lr: float = 1.0e-4
    weight_decay: float = 0.01
    betas: tuple[float, float] = (0.9, 0.999)
    clip_norm: float | None = 1.0
    warmup_steps: int = 0
    warmup_epochs: float = 0
    ema_decay: float = 0.9999
    ema_warmup: bool = True

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optimizer.lr must be positive, got {self.lr}")
        if self.weight_decay < 0:
            raise ValueError(f"optimizer.weight_decay must be at least 0, got {self.weight_decay}")
        if len(self.betas) != 2 or not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"optimizer.betas must be two numbers in [0, 1), got {list(self.betas)}")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"optimizer.clip_norm must be positive or null, got {self.clip_norm}")
        if self.warmup_steps < 0:
            raise ValueError(f"optimizer.warmup_steps must be at least 0, got {self.warmup_steps}")
        if self.warmup_epochs < 0 or (self.warmup_epochs and self.warmup_steps):
            raise ValueError(
                "give optimizer.warmup_steps or optimizer.warmup_epochs, at least 0, and 0 for the other; "
                f"got {self.warmup_steps} and {self.warmup_epochs}"
            )
        if not 0 <= self.ema_decay < 1:
            raise ValueError(f"optimizer.ema_decay must lie in [0, 1), got {self.ema_decay}")

    def in_steps(self, steps_per_epoch: int) -> Optimization:
        """The same with its warm-up counted in optimizer steps."""
        steps = round(self.warmup_epochs * steps_per_epoch) or self.warmup_steps
        return replace(self, warmup_steps=steps, warmup_epochs=0)

    def create(self, parameters: Iterable[torch.nn.Parameter]) -> tuple[AdamW, LambdaLR]:
        """The optimizer, and the learning-rate schedule that is advanced after each of its steps."""
        trained = [parameter for parameter in parameters if parameter.requires_grad]
        fused = all(parameter.device.type in ("cpu", "cuda") for parameter in trained)
        optimizer = AdamW(
            trained, lr=self.lr, betas=(self.betas[0], self.betas[1]), weight_decay=self.weight_decay, fused=fused
        )
        return optimizer, LambdaLR(optimizer, self.lr_factor)

    def lr_factor(self, step: int) -> float:
        """The learning rate at optimizer step `step` (from 0) relative to `lr`."""
        return min(1.0, (step + 1) / max(1, self.warmup_steps))

    def clip(self, parameters: Iterable[torch.nn.Parameter]) -> Tensor:
        """Clips the gradients in place and returns their global norm before clipping."""
        limit = float("inf") if self.clip_norm is None else self.clip_norm
        return torch.nn.utils.clip_grad_norm_(parameters, limit)
