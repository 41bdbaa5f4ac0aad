"""What goes into a training step, and what comes out of it."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from flowexp.draws import StepKey


@dataclass(frozen=True)
class StepLosses:
    """What a training step computes.

    Arguments:
        loss: scalar to be minimised.
        terms: the named parts of the loss, scalars without gradient.
        error: squared velocity error of each regressed row, (R,), without gradient.
        t: noise level of those rows, (R,).
    """

    loss: Tensor
    terms: dict[str, Tensor]
    error: Tensor
    t: Tensor


@dataclass(frozen=True)
class TrainingBatch:
    """Data with everything that a step draws for it.

    Arguments:
        data: clean images in [-1, 1], (B, C, H, W).
        noise: Gaussian noise, (B, C, H, W).
        t: noise levels of these rows on the CPU, (B,).
        label: class of each row as the network sees it, (B,), or None.
        everyone_t: noise levels of the global batch on the CPU, (world_size * B,); `t` for one process.
        key: names the batch, for whoever needs a further draw.
        pixels: uint8 pictures (B, C, H, W) of the data where the network works on latents and a term looks at them.
    """

    data: Tensor
    noise: Tensor
    t: Tensor
    label: Tensor | None = None
    everyone_t: Tensor | None = None
    key: StepKey = field(default_factory=lambda: StepKey(seed=0, step=0))
    pixels: Tensor | None = None

    def t_on_device(self) -> Tensor:
        return self.t.to(self.data.device, non_blocking=True)
