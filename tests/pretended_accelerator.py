"""A pretended accelerator: tensors of device "cuda" that have a shape and no values, for machines that have none.

As on a real one, an operation that mixes devices fails. Unlike on a real one, so does asking for a value (`item`,
`.cpu()`, a mask as an index): each such question makes the host wait for all work that the device has in its queue.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensor, FakeTensorMode
from torch.utils._pytree import tree_leaves

from flowexp.flow.randomness import keyed_generator
from flowexp.training import step_draws


class AskedTheDevice(AssertionError):
    """Something needed a value of a tensor on the accelerator."""


class PretendedAccelerator(FakeTensorMode):
    """Within it, operations on "cuda" compute shapes alone; those on the CPU are what they always are.

    answers: what a question for values gets, instead of `AskedTheDevice`; None refuses.
    """

    def __init__(self, answers: float | None = None) -> None:
        super().__init__(allow_non_fake_inputs=True)
        self.answers = answers

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = dict(kwargs or {})
        device = torch.device(kwargs["device"]) if kwargs.get("device") is not None else None
        here = any(isinstance(leaf, FakeTensor) for leaf in tree_leaves((args, kwargs)))
        if not here and (device is None or device.type == "cpu"):
            return func(*args, **kwargs)
        if "generator" in kwargs:
            kwargs["generator"] = None  # one of the CPU stands for the device's
        if device is not None and device.type == "cpu":
            return self._value(func, args[0])
        try:
            return super().__torch_dispatch__(func, types, args, kwargs)
        except DataDependentOutputException:
            return self._value(func, args[0])

    def _value(self, func: Any, tensor: Tensor) -> Any:
        if self.answers is None:
            raise AskedTheDevice(f"{func} of a tensor of shape {tuple(tensor.shape)} waits for the accelerator")
        if func is torch.ops.aten._local_scalar_dense.default:
            return self.answers if tensor.is_floating_point() else int(self.answers)
        return torch.full(tensor.shape, self.answers).to(tensor.dtype)


@contextmanager
def pretended_accelerator(answers: float | None = None) -> Iterator[torch.device]:
    """The device "cuda" of a machine without one."""
    with pytest.MonkeyPatch.context() as patch, PretendedAccelerator(answers):
        patch.setattr(step_draws, "keyed_generator", lambda *key, device="cpu": keyed_generator(*key))
        yield torch.device("cuda")


def moved(module: nn.Module) -> nn.Module:
    """The module with its parameters and buffers on the pretended accelerator."""
    for part in module.modules():
        for name, parameter in part._parameters.items():
            if parameter is not None:
                part._parameters[name] = nn.Parameter(parameter.detach().to("cuda"), parameter.requires_grad)
        for name, buffer in part._buffers.items():
            if buffer is not None:
                part._buffers[name] = buffer.to("cuda")
        if hasattr(part, "_device"):
            part._device = torch.device("cuda", 0)  # Lightning would ask which one
    return module
