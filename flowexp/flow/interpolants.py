"""Interpolants: the path xt = alpha(t) data + sigma(t) noise; velocity, data, noise and score from one another.

SiT writes its paths on the reversed axis t_sit = progress(t). There v_sit = -v, and with t mapped every formula below
is SiT's (transport/path.py).
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from flowexp.flow.choices import check_choice
from flowexp.flow.time import Interval, expand, progress

QUANTITIES = ("velocity", "data", "noise", "score")


def _aligned(t: Tensor, like: Tensor) -> Tensor:
    """`t` beside the rows of `like`, in fp32 or better: a bf16 alpha would move the path by 0.4 %."""
    return expand(t, like).to(torch.promote_types(torch.promote_types(t.dtype, like.dtype), torch.float32))


@dataclass(frozen=True)
class Interpolant(ABC):
    """A path from data (t = 0) to Gaussian noise (t = 1).

    In all methods `t` is (B,), everything else (B, ...). The arithmetic is fp32 or better, the result has the dtype of
    the first argument. A quantity that the others do not determine at an end point (the noise, given data and xt, at
    t = 0) comes out infinite or nan there; one that has a limit comes out as the limit.
    """

    name: ClassVar[str]

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Coefficient of the data: 1 at t = 0."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Coefficient of the noise: 0 at t = 0."""

    @abstractmethod
    def alpha_dot(self, t: Tensor) -> Tensor:
        """d alpha / dt on flowexp's axis (negative)."""

    @abstractmethod
    def sigma_dot(self, t: Tensor) -> Tensor:
        """d sigma / dt on flowexp's axis (positive)."""

    def wronskian(self, t: Tensor) -> Tensor:
        """alpha sigma' - alpha' sigma, the determinant of (data, noise) -> (xt, velocity)."""
        return self.alpha(t) * self.sigma_dot(t) - self.alpha_dot(t) * self.sigma(t)

    @property
    def train_interval(self) -> Interval:
        """The noise levels a velocity network is trained on."""
        return (0.0, 1.0)

    @property
    def ode_interval(self) -> Interval:
        """The noise levels between which the velocity field can be integrated."""
        return (0.0, 1.0)

    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """xt = alpha data + sigma noise."""
        time = _aligned(t, data)
        return (self.alpha(time) * data + self.sigma(time) * noise).to(data.dtype)

    def velocity(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        """d xt / dt = alpha' data + sigma' noise: the regression target of flow matching."""
        time = _aligned(t, data)
        return (self.alpha_dot(time) * data + self.sigma_dot(time) * noise).to(data.dtype)

    def convert(self, value: Tensor, xt: Tensor, t: Tensor, source: str, target: str) -> Tensor:
        """The `target` quantity at `(xt, t)`, given the `source` quantity there.

        source, target: "velocity", "data", "noise" or "score" (of the marginal, score = -noise / sigma).
        """
        for quantity in (source, target):
            check_choice("a quantity", quantity, QUANTITIES)
        return value if source == target else getattr(self, f"{target}_from_{source}")(value, xt, t)

    def data_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """data = (sigma' xt - sigma velocity) / W, W the Wronskian; on the linear path xt - t velocity."""
        time = _aligned(t, xt)
        of_xt, of_velocity = self.sigma_dot(time) / self.wronskian(time), self.sigma(time) / self.wronskian(time)
        return (of_xt * xt - of_velocity * velocity).to(velocity.dtype)

    def noise_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """noise = (alpha velocity - alpha' xt) / W; on the linear path xt + (1 - t) velocity."""
        time = _aligned(t, xt)
        of_xt, of_velocity = self.alpha_dot(time) / self.wronskian(time), self.alpha(time) / self.wronskian(time)
        return (of_velocity * velocity - of_xt * xt).to(velocity.dtype)

    def score_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """score = (alpha' xt - alpha velocity) / (sigma W): -noise / sigma. Infinite at t = 0."""
        return self.score_from_noise(self.noise_from_velocity(velocity, xt, t), xt, t)

    def velocity_from_data(self, data: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """velocity = (sigma' xt - W data) / sigma; on the linear path (xt - data) / t. Infinite at t = 0."""
        time = _aligned(t, xt)
        velocity = (self.sigma_dot(time) * xt - self.wronskian(time) * data) / self.sigma(time)
        return velocity.to(data.dtype)

    def velocity_from_noise(self, noise: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """velocity = (W noise + alpha' xt) / alpha; on the linear path (noise - xt) / (1 - t). Infinite at t = 1."""
        time = _aligned(t, xt)
        velocity = (self.wronskian(time) * noise + self.alpha_dot(time) * xt) / self.alpha(time)
        return velocity.to(noise.dtype)

    def velocity_from_score(self, score: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """velocity = (alpha' xt - W sigma score) / alpha: `velocity_from_noise` of noise = -sigma score."""
        return self.velocity_from_noise(self.noise_from_score(score, xt, t), xt, t)

    def data_from_noise(self, noise: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """data = (xt - sigma noise) / alpha. Infinite at t = 1."""
        time = _aligned(t, xt)
        return ((xt - self.sigma(time) * noise) / self.alpha(time)).to(noise.dtype)

    def noise_from_data(self, data: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """noise = (xt - alpha data) / sigma. Infinite at t = 0."""
        time = _aligned(t, xt)
        return ((xt - self.alpha(time) * data) / self.sigma(time)).to(data.dtype)

    def data_from_score(self, score: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """data = (xt + sigma^2 score) / alpha, Tweedie's formula. Infinite at t = 1."""
        return self.data_from_noise(self.noise_from_score(score, xt, t), xt, t)

    def score_from_data(self, data: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """score = (alpha data - xt) / sigma^2. Infinite at t = 0."""
        return self.score_from_noise(self.noise_from_data(data, xt, t), xt, t)

    def noise_from_score(self, score: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """noise = -sigma score."""
        return (-self.sigma(_aligned(t, xt)) * score).to(score.dtype)

    def score_from_noise(self, noise: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        """score = -noise / sigma. Infinite at t = 0."""
        return (-noise / self.sigma(_aligned(t, xt))).to(noise.dtype)


@dataclass(frozen=True)
class Linear(Interpolant):
    """Rectified flow: xt = (1 - t) data + t noise, velocity = noise - data (LCF eqs. 1 and 4; SiT's Linear)."""

    name: ClassVar[str] = "linear"

    def interpolate(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        time = _aligned(t, data)
        return (progress(time) * data + time * noise).to(data.dtype)

    def velocity(self, data: Tensor, noise: Tensor, t: Tensor) -> Tensor:
        return noise - data

    def alpha(self, t: Tensor) -> Tensor:
        return progress(t)

    def sigma(self, t: Tensor) -> Tensor:
        return t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return torch.full_like(t, -1.0)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)

    def wronskian(self, t: Tensor) -> Tensor:
        return torch.ones_like(t)


@dataclass(frozen=True)
class GVP(Interpolant):
    """Generalised variance preserving: alpha = cos(pi t / 2), sigma = sin(pi t / 2) (SiT's GVP)."""

    name: ClassVar[str] = "gvp"

    def alpha(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * progress(t))  # the cosine, but exactly 0 at t = 1

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(math.pi / 2 * t)

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -math.pi / 2 * self.sigma(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return math.pi / 2 * self.alpha(t)

    def wronskian(self, t: Tensor) -> Tensor:
        return torch.full_like(t, math.pi / 2)


@dataclass(frozen=True)
class SBDMVP(Interpolant):
    """Variance-preserving diffusion: beta(t) = beta_min + t (beta_max - beta_min), alpha = exp(-1/2 int_0^t beta),
    sigma^2 = 1 - alpha^2 (Song et al. 2021, appendix C; SiT's SBDM-VP).

    alpha(1) = 0.0066, so pure noise is reached only nearly. sigma' is infinite at t = 0, hence the intervals.
    """

    beta_min: float = 0.1
    beta_max: float = 20.0

    name: ClassVar[str] = "sbdm_vp"

    def __post_init__(self) -> None:
        if not 0 < self.beta_min <= self.beta_max:
            raise ValueError(f"SBDM-VP needs 0 < beta_min <= beta_max, got {self.beta_min} and {self.beta_max}")

    def beta(self, t: Tensor) -> Tensor:
        """The rate of the diffusion, shaped like t."""
        return self.beta_min + t * (self.beta_max - self.beta_min)

    def log_alpha(self, t: Tensor) -> Tensor:
        """log alpha = -1/2 int_0^t beta, shaped like t."""
        return -t * (self.beta_min / 2 + t * (self.beta_max - self.beta_min) / 4)

    def alpha(self, t: Tensor) -> Tensor:
        return torch.exp(self.log_alpha(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sqrt(-torch.expm1(2 * self.log_alpha(t)))  # 1 - alpha^2 would cancel at small t

    def alpha_dot(self, t: Tensor) -> Tensor:
        return -self.beta(t) / 2 * self.alpha(t)

    def sigma_dot(self, t: Tensor) -> Tensor:
        return -self.alpha(t) * self.alpha_dot(t) / self.sigma(t)

    @property
    def train_interval(self) -> Interval:
        return (1e-5, 1.0)

    @property
    def ode_interval(self) -> Interval:
        return (1e-3, 1.0)

    # Velocity and score determine each other without sigma: velocity = -beta / 2 (xt + score), the probability-flow
    # ODE (Song et al. 2021, eq. 13). So all that has a limit at t = 0, where sigma' is infinite, takes that way.

    def score_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return (-2 * velocity / self.beta(_aligned(t, xt)) - xt).to(velocity.dtype)

    def velocity_from_score(self, score: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return (-self.beta(_aligned(t, xt)) / 2 * (xt + score)).to(score.dtype)

    def noise_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return self.noise_from_score(self.score_from_velocity(velocity, xt, t), xt, t)

    def data_from_velocity(self, velocity: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return self.data_from_score(self.score_from_velocity(velocity, xt, t), xt, t)

    def velocity_from_noise(self, noise: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return self.velocity_from_score(self.score_from_noise(noise, xt, t), xt, t)

    def velocity_from_data(self, data: Tensor, xt: Tensor, t: Tensor) -> Tensor:
        return self.velocity_from_score(self.score_from_data(data, xt, t), xt, t)
