"""How a module's samples are drawn, as it stands beside every number that was measured on them."""

from __future__ import annotations

import hashlib
from typing import Any

from torch import nn

from flowexp.objectives import FlowMatching


def sampling_protocol(module: FlowMatching) -> dict[str, Any]:
    """The sampler's settings, and with autoguidance the guide."""
    guide = guide_protocol(module)
    return module.sampler.protocol() | ({} if guide is None else {"guide": guide})


def guide_protocol(module: FlowMatching) -> dict[str, Any] | None:
    """Which weaker network guides the samples, by its weights; None where none does."""
    if module.guide is None or module.sampler.autoguidance_scale == 1:
        return None
    return {"weights": weights_of(module.guide.backbone)}


def weights_of(network: object) -> str:
    """16 hexadecimal digits that identify the weights."""
    assert isinstance(network, nn.Module)
    digest = hashlib.blake2b(digest_size=8)
    for weight in network.parameters():
        digest.update(weight.detach().float().cpu().contiguous().numpy().data)
    return digest.hexdigest()
