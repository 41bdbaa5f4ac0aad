"""How the weights are updated: any torch optimizer, made for a module's trained parameters, and gradient clipping."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import Parameter
from torch.optim import AdamW, Optimizer

MakeOptimizer = Callable[..., Optimizer]
NAMED = "named_parameters"  # of an optimizer that has to know what a parameter is for, such as Muon
ADAMW: MakeOptimizer = partial(AdamW, lr=1e-4, weight_decay=0.01, betas=(0.9, 0.999), fused=True)
CLIP_NORM = 1.0  # LCF A.4.2
_SHOWN = ("lr", "momentum", "weight_decay")


def create_optimizer(make: MakeOptimizer, named_parameters: Iterable[tuple[str, Parameter]]) -> Optimizer:
    """The optimizer of the parameters that are trained.

    make: a torch optimizer but for its parameters, such as `functools.partial(torch.optim.SGD, lr=0.01)`; one whose
    signature has `named_parameters` gets the names too. The default of modules, `ADAMW`, is that of LCF A.4.2.
    """
    trained = [(name, parameter) for name, parameter in named_parameters if parameter.requires_grad]
    if _settings(make).get("fused") and not all(p.device.type in ("cpu", "cuda") for _, p in trained):
        make = partial(make, fused=False)  # no kernel for any other device
    if NAMED in inspect.signature(make).parameters:
        return make(named_parameters=trained)
    return make([parameter for _, parameter in trained])


def use_weights(optimizer: Optimizer, to_train: bool) -> None:
    """Puts in place the weights at which an optimizer takes gradients, or those that it offers to be measured.

    They differ for one with the methods `train` and `eval`, such as schedule-free AdamW (Defazio et al. 2024), whose
    average is measured; the optimizers of torch have neither, and one set of weights.
    """
    switch = getattr(optimizer, "train" if to_train else "eval", None)
    if switch is not None:
        switch()


def clip_gradients(
    parameters: Iterable[Parameter], limit: float | None = CLIP_NORM, algorithm: str | None = None
) -> Tensor:
    """Clip the gradients in place and return their global norm before clipping, a scalar.

    Gradients whose norm is not finite stay as they are, so that they can be examined.

    Arguments:
        parameters: those whose gradients are clipped.
        limit: the largest norm, or the largest absolute value of an element; None and 0 never clip.
        algorithm: "norm", which None means, or "value".
    """
    clipped = [parameter for parameter in parameters if parameter.grad is not None]
    norm = torch.nn.utils.get_total_norm([p.grad for p in clipped if p.grad is not None])
    if limit and algorithm == "value":
        torch.nn.utils.clip_grad_value_(clipped, limit)
    elif limit:
        torch.nn.utils.clip_grads_with_norm_(clipped, limit, norm)
    return norm


def check_optimizer(make: MakeOptimizer) -> Optimizer:
    """Make the optimizer for a dummy weight and bias: wrong settings are refused before a dataset is read.

    Raises:
        ValueError: settings that it refuses.
    """
    if (lr := _settings(make).get("lr")) is not None and lr <= 0:
        raise ValueError(f"optimizer.lr must be positive, got {lr:g}")
    parts = [("backbone.blocks.0.weight", Parameter(torch.zeros(1, 1))), ("bias", Parameter(torch.zeros(1)))]
    try:
        return create_optimizer(make, parts)
    except (TypeError, ValueError) as error:
        given = ", ".join(f"{key}={value}" for key, value in _settings(make).items())
        raise ValueError(f"the optimizer cannot be made with {given or 'its defaults'}: {error}") from error


def _settings(make: MakeOptimizer) -> dict[str, Any]:
    return make.keywords if isinstance(make, partial) else {}


def describe_optimizer(make: MakeOptimizer) -> str:
    """`AdamW, lr 0.0001, weight decay 0.01`."""
    target = make.func if isinstance(make, partial) else make
    settings = [f"{key.replace('_', ' ')} {_settings(make)[key]:g}" for key in _SHOWN if _is_number(make, key)]
    return ", ".join([getattr(target, "__name__", type(target).__name__), *settings])


def _is_number(make: MakeOptimizer, key: str) -> bool:
    return isinstance(_settings(make).get(key), int | float)
