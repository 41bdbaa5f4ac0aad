"""The exponential moving average of a network's parameters, beside them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter


@dataclass(frozen=True)
class EMA:
    """Which averages of the weights a training keeps.

    Arguments:
        decay: of the average; several are several averages, of which the first is measured unless another is chosen.
            None and an empty list are none: the weights as trained are measured.
        warmup: whether decays rise as (1 + n) / (10 + n) at first, see `ExponentialMovingAverage`.

    Raises:
        ValueError: a decay outside [0, 1), or one that is given twice.
    """

    decay: float | Sequence[float] | None = 0.9999
    warmup: bool = True

    def __post_init__(self) -> None:
        for decay in self.decays:
            if not 0 <= decay < 1:
                raise ValueError(f"ema.decay must lie in [0, 1), got {decay}")
        if len(set(self.decays)) < len(self.decays):
            raise ValueError(f"ema.decay must name each decay once, got {list(self.decays)}")

    @property
    def decays(self) -> tuple[float, ...]:
        if self.decay is None:
            return ()
        return (self.decay,) if isinstance(self.decay, int | float) else tuple(self.decay)

    def __str__(self) -> str:
        return " and ".join(f"{decay:g}" for decay in self.decays) or "none"

    def create(self, parameters: Mapping[str, Parameter]) -> dict[float, ExponentialMovingAverage]:
        """The averages of `parameters`, by their decay."""
        return {decay: ExponentialMovingAverage(parameters, decay, self.warmup) for decay in self.decays}


class ExponentialMovingAverage:
    """average <- decay average + (1 - decay) parameter, begun at the parameters' first values.

    parameters: by name, as `dict(module.named_parameters())`; the live objects are referenced.
    warmup: the n-th update (from 1) decays by min(decay, (1 + n) / (10 + n)), so that early averages are not the
    random initial weights.

    The averages are fp32 or better: at 0.9999 an update is below the resolution of bf16, which would never move.

    By hand and not Lightning's WeightAveraging: that averages a copy of the whole module in the weights' own dtype, one
    decay at a time, does not know sharded weights, and leaves the average in place of what was trained.
    """

    def __init__(self, parameters: Mapping[str, Parameter], decay: float = 0.9999, warmup: bool = True) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"the decay of an average must lie in [0, 1), got {decay}")
        self.parameters = dict(parameters)
        self.decay = decay
        self.warmup = warmup
        self.num_updates = 0
        self.averages = {name: _wide(value).clone() for name, value in self.parameters.items()}

    @torch.no_grad()
    def update(self) -> None:
        """Move the averages towards the parameters, once per optimiser step."""
        self._follow()
        self.num_updates += 1
        values = [_wide(value) for value in self.parameters.values()]
        torch._foreach_lerp_(list(self.averages.values()), values, 1 - self.current_decay)

    @property
    def current_decay(self) -> float:
        """The decay of the latest update."""
        n = self.num_updates
        return min(self.decay, (1 + n) / (10 + n)) if self.warmup else self.decay

    def state_dict(self) -> dict[str, Any]:
        """Plain containers, loadable with `weights_only`; the tensors are the live averages, as a module's are.

        Of averages that are split over processes (FSDP) each process has its share.
        """
        return {"decay": self.decay, "num_updates": self.num_updates, "averages": dict(self.averages)}

    @torch.no_grad()
    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a saved state. Raises ValueError where the names or shapes differ from the parameters'."""
        saved = {name: tuple(value.shape) for name, value in state["averages"].items()}
        own = {name: tuple(value.shape) for name, value in self.averages.items()}
        if different := sorted(name for name in saved | own if saved.get(name) != own.get(name)):
            raise ValueError(f"the saved average is of another network: {different[:5]} differ in name or shape")
        for name, average in self.averages.items():
            average.copy_(_split_like(average, state["averages"][name]))
        self.num_updates = int(state["num_updates"])

    @contextmanager
    def swapped(self) -> Iterator[None]:
        """Within the context the live parameters hold the averages; after it, also on an error, their values."""
        self._follow()
        own = {name: value.detach().clone() for name, value in self.parameters.items()}
        try:
            self._write(self.averages)
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, values: Mapping[str, Tensor]) -> None:
        for name, parameter in self.parameters.items():
            parameter.copy_(values[name])

    def _follow(self) -> None:
        """Follow the parameters, which reach their device after the average was made."""
        for name, value in self.parameters.items():
            if self.averages[name].device != value.device:
                self.averages[name] = self.averages[name].to(value.device)


def whole(value: Tensor) -> Tensor:
    """A tensor that processes share, gathered to its full shape; all must call this. Any other is returned as it is."""
    return value.full_tensor() if _is_shared(value) else value  # type: ignore[attr-defined]


def _is_shared(value: Tensor) -> bool:
    """Whether it is a DTensor; told by a method of those, since their package takes half a second to import."""
    return hasattr(value, "full_tensor")


def _split_like(reference: Tensor, value: Tensor) -> Tensor:
    """`value`, which every process holds or has its share of, as the share that this process has of `reference`."""
    if not _is_shared(reference) or _is_shared(value):
        return value
    from torch.distributed.tensor import DTensor, distribute_tensor

    assert isinstance(reference, DTensor)
    value = value.to(reference.device)
    return distribute_tensor(value, reference.device_mesh, reference.placements, src_data_rank=None)


def _wide(value: Tensor) -> Tensor:
    return value.detach().to(torch.promote_types(value.dtype, torch.float32))
