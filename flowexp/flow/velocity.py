"""Velocity fields: functions (x, t) -> velocity, and the wrappers that make one field of another.

The order along a sampling call is network with its label -> guidance (CFG) -> autoguidance -> scale (SSC) -> solver.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from flowexp.flow.profiles import Profile, scale_schedule
from flowexp.flow.time import Interval, expand, progress

Field = Callable[[Tensor, Tensor], Tensor]
EVERYWHERE: Interval = (0.0, 1.0)


class Network(Protocol):
    """A network of (x, t, label), with x (B, ...), t (B,) and label (B,), (B, L, D) or None.

    It names the condition that stands for "nothing", shaped like the label; None where it has none.
    """

    def __call__(self, x: Tensor, t: Tensor, label: Tensor | None = None, /) -> Tensor: ...

    def null_condition(self, label: Tensor | None) -> Tensor | None: ...


@dataclass(frozen=True)
class Conditional:
    """The field of a network for fixed labels: (B,) integers, (B, L, D) embeddings, or None where it takes none."""

    backbone: Network
    label: Tensor | None = None

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return self.backbone(x, t, self.label)


@dataclass(frozen=True)
class Guided:
    """Classifier-free guidance: v_null + scale (v_label - v_null) (Ho and Salimans 2022, eq. 6, with scale = 1 + w).

    Both velocities come from one network call of doubled batch.

    label: (B,) integers or (B, L, D) embeddings. null_condition: what stands for "nothing", shaped like label.
    channels: how many leading channels are guided, None for all; SiT's code guides 3 of 4, REPA's all.
    interval: noise levels (low, high) that are guided; elsewhere the velocity is the conditional one. An interval other
        than (0, 1) asks the device for t once per call.
    """

    backbone: Network
    label: Tensor
    null_condition: Tensor
    scale: float
    channels: int | None = None
    interval: Interval = EVERYWHERE

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        if _covers_all(self.interval):
            return self._guided(x, t)[0]
        inside = _inside(t, self.interval)
        if not inside.any():
            return self.backbone(x, t, self.label)
        guided, conditional = self._guided(x, t)
        return torch.where(expand(inside, guided), guided, conditional)

    def _guided(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        """The guided velocity and the conditional one."""
        label = torch.cat([self.label, self.null_condition])
        conditional, null = self.backbone(torch.cat([x, x]), torch.cat([t, t]), label).chunk(2)
        guided = torch.lerp(null, conditional, self.scale)
        if self.channels is not None:
            guided = torch.cat([guided[:, : self.channels], conditional[:, self.channels :]], dim=1)
        return guided, conditional


@dataclass(frozen=True)
class Autoguided:
    """Autoguidance: v_weak + scale (v - v_weak), away from a weaker network under the same label (Karras et al. 2024,
    "Guiding a Diffusion Model with a Bad Version of Itself", eq. 3, which is linear and so holds for velocities too).

    Around a field that is itself `Guided` by s it is v + w (s - 1) (v - v_null) + (w - 1) (v - v_weak), all v of the
    conditional networks: the first guidance is stretched by w = scale, the second is as it would be alone.

    weak_field: the velocity of the weaker network, on the same path; one call wherever the velocity is guided.
    interval: noise levels (low, high) that are guided; elsewhere the velocity is `field`'s. An interval other than
        (0, 1) asks the device for t once per call.
    """

    field: Field
    weak_field: Field
    scale: float
    interval: Interval = EVERYWHERE

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        velocity = self.field(x, t)
        if _covers_all(self.interval):
            return torch.lerp(self.weak_field(x, t), velocity, self.scale)
        inside = _inside(t, self.interval)
        if not inside.any():
            return velocity
        guided = torch.lerp(self.weak_field(x, t), velocity, self.scale)
        return torch.where(expand(inside, guided), guided, velocity)


@dataclass(frozen=True)
class Scaled:
    """SSC, the Scale Schedule Corrector: s(progress) v(x, t), with s from `s0` at the noise end (t = 1) to `s1` at the
    data end (VD eq. 10, s0 = 1.1, s1 = 1; shapes of VD Table 7).

    With s0 = s1 = 1 it is the field itself, bit for bit.
    """

    field: Field
    s0: float = 1.0
    s1: float = 1.0
    profile: str | Profile = "linear"

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        velocity = self.field(x, t)
        if self.s0 == self.s1 == 1:
            return velocity
        scale = scale_schedule(self.profile, self.s0, self.s1)(progress(t))
        return velocity * expand(scale, velocity)


@dataclass(frozen=True)
class Reversed:
    """The same field on the other time axis, -field(x, 1 - t): between ours and that of SiT, torchcfm or flow_matching.

    They run from noise at 0 to data at 1, and their velocity is dx/dt on that axis. It is its own inverse:
    `Reversed(Scaled(Reversed(theirs), s0=1.1))` is SSC on their axis.
    """

    field: Field

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        return -self.field(x, progress(t))


class Counted:
    """A field that counts its calls: `nfe`, the number of function evaluations per sample.

    A call counts once whatever it costs: guidance (CFG) doubles its batch, autoguidance adds a call of another network.
    """

    def __init__(self, field: Field) -> None:
        self.field = field
        self.nfe = 0

    def __call__(self, x: Tensor, t: Tensor) -> Tensor:
        self.nfe += 1
        return self.field(x, t)


def _covers_all(interval: Interval) -> bool:
    return interval[0] <= 0 and interval[1] >= 1


def _inside(t: Tensor, interval: Interval) -> Tensor:
    return (t >= interval[0]) & (t <= interval[1])
