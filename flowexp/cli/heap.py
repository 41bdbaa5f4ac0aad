"""The memory of tensors that are freed, kept for the next ones. Imports no torch."""

from __future__ import annotations

import ctypes
import os

_TRIM_THRESHOLD, _MMAP_MAX = -1, -4  # of glibc's mallopt(3)
_GIVEN = ("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD")  # how the variables begin by which others choose for themselves


def keep_freed_memory() -> bool:
    """Has the C library keep what is freed; whether it does, which only glibc can.

    By default it gives large tensors back to the system, which hands out their pages anew, one by one and zeroed, at
    every operation: 30 % of the time of a small network on 256 images. The peak grows by about a hundredth.
    """
    if any(name.startswith(_GIVEN) for name in os.environ):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError, TypeError):  # musl, macOS, Windows
        return False
    return bool(mallopt(_MMAP_MAX, 0) and mallopt(_TRIM_THRESHOLD, 2**31 - 1))
