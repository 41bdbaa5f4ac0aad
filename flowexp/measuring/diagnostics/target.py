"""What a network's velocity is compared with: the velocity of a pair, as far as the network can reach it."""

from __future__ import annotations

from torch import Tensor

from flowexp.flow.interpolants import Interpolant
from flowexp.flow.parameterization import VelocityNetwork
from flowexp.flow.velocity import Network


def target_velocity(network: Network, interpolant: Interpolant, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """v* = alpha' data + sigma' noise (B, ...), or what a perfect output of `network` stands for where that is less.

    A `VelocityNetwork` that predicts data (or noise) divides by no less than its clamp. Beyond that, below t = 0.05 (or
    above 0.95) on the linear path, its perfect output, the target of training, stands for t / 0.05 (progress / 0.05)
    of v*. Compared with v* itself, the most exact network would seem to have a deficit of 90 % at t = 0.005.

    Linear in (data, noise), as v* is.
    """
    target = interpolant.velocity(data, noise, t)
    if not isinstance(network, VelocityNetwork):
        return target
    return network.attainable(target, interpolant.interpolate(data, noise, t), t)
