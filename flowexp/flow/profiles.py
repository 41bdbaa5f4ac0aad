"""Profiles: one scalar shape along the path, shared by SSC's scale and by MAFM's weight (VD Tables 7 and 9)."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from flowexp.flow.choices import chosen
from flowexp.flow.time import noise_level

Schedule = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Profile:
    """A function g of progress (VD's t), 1 at the noise end and 0 at the data end; `constant` stays at 1.

    area: the integral of g over [0, 1].
    """

    name: str
    shape: Schedule
    area: float

    def __call__(self, progress: Tensor) -> Tensor:
        """g at `progress` in [0, 1], of the same shape."""
        return self.shape(progress)


PROFILES = {
    profile.name: profile
    for profile in (
        Profile("constant", torch.ones_like, area=1.0),
        Profile("linear", noise_level, area=1 / 2),
        Profile("cosine", lambda p: (1.0 + torch.cos(math.pi * p)) / 2, area=1 / 2),
        Profile("quad_in", lambda p: 1.0 - p**2, area=2 / 3),
        Profile("quad_out", lambda p: noise_level(p) ** 2, area=1 / 3),
    )
}


def create_profile(name: str | Profile) -> Profile:
    """The profile of that name; a profile is returned as it is."""
    return name if isinstance(name, Profile) else chosen("profile", name, PROFILES)


def scale_schedule(profile: str | Profile, s0: float, s1: float) -> Schedule:
    """SSC's scale s1 + (s0 - s1) g: `s0` at the noise end, `s1` at the data end (VD eq. 10, other shapes Table 7)."""
    shape = create_profile(profile)
    return lambda progress: s1 + (s0 - s1) * shape(progress)


def unit_weight(profile: str | Profile) -> Schedule:
    """MAFM's weight (0.5 / area) g: every profile with the integral 1/2 of the linear one (VD Table 9)."""
    shape = create_profile(profile)
    return lambda progress: (0.5 / shape.area) * shape(progress)
