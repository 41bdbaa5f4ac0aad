"""The one time axis: t is the noise level, 0 = clean data, 1 = pure noise; sampling runs from t = 1 to t = 0.

LCF (Algorithm 1) and REPA use this axis. The Velocity Deficit paper and SiT run the other way: their t is `progress`
here. This is the only file that writes `1 - t`; a test holds that.
"""

from __future__ import annotations

import math
from typing import TypeVar

from torch import Tensor

LEVELS = 1000  # the papers' time steps (LCF's T_min = 20) are counted out of this many; everything else is a level

Time = TypeVar("Time", float, Tensor)
Interval = tuple[float, float]  # of noise levels, the lower end first


def progress(t: Time) -> Time:
    """How far sampling has come at noise level `t`: 0 at pure noise, 1 at clean data."""
    return 1.0 - t


def noise_level(progress: Time) -> Time:
    """The noise level at a given progress; the inverse of `progress`."""
    return 1.0 - progress


def expand(t: Tensor, like: Tensor) -> Tensor:
    """One time per row, `(B,)`, as `(B, 1, .., 1)`, to be multiplied with the rows of `like` `(B, ...)`."""
    if t.shape != like.shape[:1]:
        raise ValueError(f"t must hold one time per row, shape {tuple(like.shape[:1])}, got {tuple(t.shape)}")
    return t.reshape(t.shape + (1,) * (like.dim() - 1))


def shifted(t: Time, shift: float) -> Time:
    """shift t / (1 + (shift - 1) t): noise levels moved towards noise for shift > 1, with 0 and 1 where they were.

    In logits it adds log(shift). SD3 takes sqrt(m / n) for m values in a picture where n needed none (Esser et al.
    2024, eq. 23), diffusers' schedulers call it `shift` too; 1 changes nothing, bit for bit.
    """
    return shift * t / (1.0 + (shift - 1.0) * t)


def unshifted(t: Time, shift: float) -> Time:
    """The noise level that `shifted` moves to `t`."""
    return t / (shift - (shift - 1.0) * t)


def check_shift(shift: float, key: str) -> None:
    """Raises ValueError for a shift that is no positive number."""
    if not 0 < shift < math.inf:
        raise ValueError(f"{key} must be a positive number, 1 for none, got {shift!r}")


def as_noise_level(level: float, key: str = "a noise level") -> float:
    """`level` as a float in [0, 1], 0 clean and 1 pure noise; 1 and 1.0 are the same.

    key: what the setting is called, for the error.

    Raises ValueError outside of [0, 1], and for what is no number.
    """
    if not _is_number(level) or not 0 <= level <= 1:
        counted = _is_number(level) and 1 < level <= LEVELS
        hint = f": {level:g} of {LEVELS} is {level / LEVELS:g}" if counted else ""
        raise ValueError(f"{key} must be a noise level in [0, 1], from clean to noise, got {level!r}{hint}")
    return float(level)


def of_thousand(T: float, key: str = "T") -> float:
    """The noise level in [0, 1] of a paper's time step `T` of 1000: 20 -> 0.02, 1 and 1.0 -> 0.001, 0.5 -> 0.0005.

    Raises ValueError outside of [0, 1000], and for what is no number.
    """
    if not _is_number(T) or not 0 <= T <= LEVELS:
        raise ValueError(f"{key} counts noise levels of {LEVELS} and must lie in [0, {LEVELS}], got {T!r}")
    return T / LEVELS


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
