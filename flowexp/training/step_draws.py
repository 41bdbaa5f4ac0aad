"""Everything random in a training step, as a pure function of (seed, step, row of the global batch).

Nothing here is saved in a checkpoint and no generator has a state: a resumed run, a run on other hardware and a run
split over more processes draw the same t, noise and label drops for the same rows.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

import torch
from torch import Tensor

from flowexp.backbones import Backbone
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.time_samplers import TimeSampler


class _Purpose(IntEnum):
    TIME, NOISE, LABEL, FRESH_NOISE, CANDIDATES, TERM = range(6)


@dataclass(frozen=True)
class StepKey:
    """Names one batch of one run, and the rows of the global batch that this process holds.

    Arguments:
        seed: the run's.
        step: optimizer steps taken before it. Epochs would not do: Lightning counts them anew after some resumes.
        part: which of the batches that this step accumulates, from 0.
        rank, world_size: this process and their number; rank r holds the r-th contiguous share of the rows.
    """

    seed: int
    step: int
    part: int = 0
    rank: int = 0
    world_size: int = 1

    def generator(self, purpose: _Purpose, device: torch.device | str) -> torch.Generator:
        return keyed_generator(self.seed, self.step, self.part, int(purpose), device=device)

    def candidates(self) -> torch.Generator:
        """For a draw of training images, the same on all processes."""
        return self.generator(_Purpose.CANDIDATES, "cpu")

    def for_term(self, number: int, device: torch.device | str = "cpu") -> torch.Generator:
        """For the draws of a loss term for the rows of all processes; `number` distinguishes its draws."""
        return keyed_generator(self.seed, self.step, self.part, int(_Purpose.TERM), number, device=device)

    def rows(self, num_rows: int) -> slice:
        """This process's rows of the global batch, when each process holds `num_rows`."""
        return slice(self.rank * num_rows, (self.rank + 1) * num_rows)


@dataclass(frozen=True)
class TrainingBatch:
    """Data with everything that a step draws for it.

    Arguments:
        data: clean images in [-1, 1], (B, C, H, W).
        noise: Gaussian noise, (B, C, H, W).
        t: noise levels of these rows on the CPU, (B,).
        label: the conditions given to the network, classes (B,) or text (B, L, D), or None.
        everyone_t: noise levels of the global batch on the CPU, (world_size * B,); None where these rows are all.
        key: of the batch, for further draws.
        pixels: uint8 pictures (B, C, H, W) of the data where the network works on latents and a term looks at them.
    """

    data: Tensor
    noise: Tensor
    t: Tensor
    label: Tensor | None = None
    everyone_t: Tensor | None = None
    key: StepKey = field(default_factory=lambda: StepKey(seed=0, step=0))
    pixels: Tensor | None = None


def draw_times(key: StepKey, time_sampler: TimeSampler, num_rows: int, interval: tuple[float, float]) -> Tensor:
    """Noise levels of the whole global batch, (world_size * num_rows,), on the CPU.

    They are drawn on the CPU whatever the device: which rows lie below T_min is then known without asking the device.
    """
    generator = key.generator(_Purpose.TIME, "cpu")
    return time_sampler(key.world_size * num_rows, generator, interval)


def draw_noise(key: StepKey, data: Tensor, fresh: bool = False) -> Tensor:
    """Standard Gaussian noise shaped like `data`; `fresh` gives a second, independent draw."""
    generator = key.generator(_Purpose.FRESH_NOISE if fresh else _Purpose.NOISE, data.device)
    shape = (key.world_size * len(data), *data.shape[1:])
    noise = torch.randn(shape, generator=generator, device=data.device, dtype=data.dtype)
    return noise[key.rows(len(data))]


def draw_labels(key: StepKey, backbone: Backbone, label: Tensor) -> Tensor | None:
    """Labels (B,) or text (B, L, D), some dropped for classifier-free guidance; None without a condition."""
    if backbone.takes == "nothing":
        return None
    generator = key.generator(_Purpose.LABEL, label.device)
    everyone = label.new_zeros((key.world_size * len(label), *label.shape[1:]))
    everyone[key.rows(len(label))] = label  # the drop is decided for the whole global batch, then this share is taken
    return backbone.drop_labels(everyone, generator)[key.rows(len(label))]


def random_class(seed: int, index: int, num_classes: int) -> int:
    """The class of sample `index` where classes are drawn at random, as ADM and SiT do, and not in turns."""
    return int(torch.randint(num_classes, (), generator=keyed_generator(seed, index, int(_Purpose.LABEL))))
