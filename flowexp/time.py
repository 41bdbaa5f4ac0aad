"""The one time axis: t is the noise level, 0 = clean data, 1 = pure noise; sampling runs from t = 1 to t = 0.

LCF (Algorithm 1) and REPA use this axis. The Velocity Deficit paper and SiT run the other way: their t is `progress`
here. This is the only file that writes `1 - t`; a test holds that.
"""

from __future__ import annotations

from typing import TypeVar

from torch import Tensor

LEVELS = 1000  # the papers' integer noise levels (LCF's T_min = 20) are counted out of this many

Time = TypeVar("Time", float, Tensor)


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


def as_noise_level(T: int | float, key: str = "a noise level") -> float:
    """The noise level in [0, 1] that a paper or a config means by `T`.

    Integers, and floats above 1, count out of 1000, so 20 -> 0.02 and 100.0 -> 0.1; other floats are levels already.
    The integer 1 is 0.001, the float 1.0 is pure noise.

    key: what the setting is called, for the error.

    Raises ValueError outside of [0, 1000], and for what is no number.
    """
    if not isinstance(T, int | float) or not 0 <= T <= LEVELS:
        raise ValueError(f"{key} must be a noise level in [0, 1], or in [0, {LEVELS}] counted of {LEVELS}; got {T}")
    return T / LEVELS if isinstance(T, int) or T > 1 else float(T)
