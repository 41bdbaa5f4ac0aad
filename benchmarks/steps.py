"""Training steps outside of a Trainer: those of any objective, and those of flow matching as written by hand."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.data import one_batch
from benchmarks.sizes import Size
from flowexp.backbones import Backbone
from flowexp.data import Images, to_float
from flowexp.objectives import FlowMatching
from flowexp.training.ema import ExponentialMovingAverage
from flowexp.training.optimization import ADAMW, clip_gradients, create_optimizer
from flowexp.training.step_draws import StepKey


class Training:
    """One network with its optimizer and EMA, which several objectives may train in turns.

    Arguments:
        network: what is trained.
        data, label: one batch on the network's device; every step trains on it.
        size: gives the precision.
    """

    def __init__(self, network: Backbone, data: Tensor, label: Tensor, size: Size) -> None:
        self.network = network
        self.data, self.label = data, label
        self.size = size
        self.optimizer = create_optimizer(ADAMW, network.named_parameters())
        self.ema = ExponentialMovingAverage(trained_parameters(network))

    @classmethod
    def of(cls, size: Size) -> Training:
        """A fresh network on one batch of images."""
        images = one_batch(size)
        return cls(size.create_network(), to_float(images.images), images.labels, size)

    def fm_step(self, precision: str | None = None) -> Callable[[], None]:
        """A function that takes the next step of flow matching."""
        return self.stepper(FlowMatching(self.network), precision)

    def stepper(self, module: FlowMatching, precision: str | None = None) -> Callable[[], None]:
        """A function that takes the next step of `module`: draw, loss, backward, clip, AdamW, EMA.

        The k-th steps of all objectives draw the same t and noise.
        """
        assert module.backbone is self.network
        keys = (StepKey(seed=0, step=step) for step in count())

        def step() -> None:
            with self.size.autocast(precision):
                loss = module.losses(module.draw(self.data, self.label, next(keys))).loss
            self.optimizer.zero_grad()
            loss.backward()
            clip_gradients(self.network.parameters())
            self.optimizer.step()
            self.ema.update()

        return step


class BareLoop:
    """Flow matching on the linear path as one writes it by hand in PyTorch, with the mathematics of `FlowMatching`.

    Images in memory in shuffled order, t and noise from the global generator, AdamW, clipping and an EMA with the
    numbers of flowexp's defaults; no seeds, no logs, no checks.
    """

    def __init__(self, network: Backbone, images: Images, size: Size) -> None:
        self.network = network
        self.images = images.images.to(size.device)
        self.size = size
        self.parameters = list(trained_parameters(network).values())
        self.averages = [parameter.detach().clone() for parameter in self.parameters]
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, weight_decay=0.01, fused=True)
        num_rows = len(images) // size.batch_size * size.batch_size
        self.batches = torch.randperm(len(images), device=size.device)[:num_rows].split(size.batch_size)
        self.num_steps = 0

    def step(self) -> None:
        data = to_float(self.images[self.batches[self.num_steps % len(self.batches)]])
        flipped = torch.rand(len(data), 1, 1, 1, device=data.device) < 0.5
        data = torch.where(flipped, data.flip(-1), data)
        self.update(data, torch.randn_like(data), torch.rand(len(data), device=data.device))

    def update(self, data: Tensor, noise: Tensor, t: Tensor) -> None:
        """One step for data and noise (B, C, H, W) and noise levels t (B,)."""
        with self.size.autocast():
            xt = torch.lerp(data, noise, t[:, None, None, None])
            loss = F.mse_loss(self.network(xt, t).float(), noise - data)
        self.optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()
        self.num_steps += 1
        decay = min(0.9999, (1 + self.num_steps) / (10 + self.num_steps))
        torch._foreach_lerp_(self.averages, [parameter.detach() for parameter in self.parameters], 1 - decay)


def trained_parameters(network: Backbone) -> dict[str, torch.nn.Parameter]:
    """The parameters that take a gradient, by name."""
    return {name: parameter for name, parameter in network.named_parameters() if parameter.requires_grad}
