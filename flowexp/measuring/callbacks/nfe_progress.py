"""A bar over the network calls of a measurement, each row of a batch one call, with the time left."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from flowexp.flow.interpolants import Linear
from flowexp.flow.sampler import Sampler
from flowexp.training.parallel.work import rank_and_world_size

IN_A_LOG = 60.0  # seconds between two lines of a log


class CallBar:
    """Counts the rows that go through `network` while it is open, and shows them on the first process."""

    def __init__(self, network: nn.Module) -> None:
        seldom = 0.2 if sys.stderr.isatty() else IN_A_LOG
        hidden = rank_and_world_size()[0] > 0
        self._bar = tqdm(total=0, unit="call", unit_scale=True, leave=False, mininterval=seldom, disable=hidden)
        self._hook = network.register_forward_hook(self._count)
        self.calls = 0
        self.rows_per_call = 1

    def expect(self, calls: int) -> None:
        """So many calls more."""
        self._bar.total += calls

    def begin(self, what: str, rows_per_call: int = 1) -> None:
        """Begin a named part. rows_per_call: 2 with guidance, which doubles the batch of every call."""
        self.rows_per_call = rows_per_call
        self._bar.set_description(what)

    def skip(self, calls: int) -> None:
        """Count calls of an earlier, stopped measurement, which have no part in the time left."""
        self._bar.initial += calls
        self._bar.n += calls

    def close(self) -> None:
        """Takes the bar and the hook away."""
        self._hook.remove()
        self._bar.close()

    def _count(self, _: nn.Module, inputs: tuple[Any, ...], __: Any) -> None:
        self.calls += len(inputs[0])
        self._bar.update(len(inputs[0]) / self.rows_per_call)


@contextmanager
def counting(network: nn.Module) -> Iterator[CallBar]:
    """A bar that is closed whatever happens."""
    bar = CallBar(network)
    try:
        yield bar
    finally:
        bar.close()


def network_calls(sampler: Sampler) -> int:
    """NFE of one sample, counted on a field that is zero; an adaptive solver takes as many as that needs."""
    plain = replace(sampler, guidance_scale=1.0, autoguidance_scale=1.0)
    return plain.sample(_Zero(), Linear(), range(1), (1, 1, 1), seed=0).nfe


class _Zero:
    """A network that costs nothing."""

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None, /) -> Tensor:
        return torch.zeros_like(x)

    def null_condition(self, label: Tensor | None) -> Tensor | None:
        return None


def rows_per_call(sampler: Sampler) -> int:
    """Guidance sends every sample twice."""
    return 2 if sampler.guidance_scale != 1 else 1
