"""The slow copy of a network, by which terms without a teacher of their own are taught."""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy

import torch
from torch import Tensor, nn

from flowexp.backbones import Backbone

Pair = tuple[nn.Module, nn.Module]  # the copy, and the module that it follows


def trunk_of(backbone: Backbone, tap: int) -> Backbone:
    """A copy of the network up to block `tap`, without gradient."""
    trunk = deepcopy(backbone)
    trunk.blocks = trunk.blocks[:tap]
    return trunk.requires_grad_(False)


@torch.no_grad()
def follow(pairs: Iterable[Pair], momentum: float) -> None:
    """copy <- momentum copy + (1 - momentum) live, for each parameter of the copies."""
    copies: list[Tensor] = []
    values: list[Tensor] = []
    for copy, module in pairs:
        live = dict(module.named_parameters())
        for name, parameter in copy.named_parameters():
            copies.append(parameter)
            values.append(live[name])
    torch._foreach_lerp_(copies, values, 1 - momentum)
