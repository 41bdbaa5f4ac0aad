"""How a module's samples are drawn, as it stands beside every number that was measured on them."""

from __future__ import annotations

from typing import Any

from torch import nn

from flowexp.objectives import FlowMatching
from flowexp.records.files import fingerprint


def sampling_protocol(module: FlowMatching) -> dict[str, Any]:
    """The sampler's settings, and with autoguidance the guide."""
    guide = guide_protocol(module)
    return module.sampler.protocol() | ({} if guide is None else {"guide": guide})


def guide_protocol(module: FlowMatching) -> dict[str, Any] | None:
    """Which weaker network guides the samples, by its weights; None where none does."""
    if module.guide is None or module.sampler.autoguidance_scale == 1:
        return None
    network = module.guide.backbone
    assert isinstance(network, nn.Module)
    return {"weights": fingerprint.of_weights(network.state_dict().items())}
