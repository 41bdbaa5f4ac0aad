"""Random numbers as pure functions of a key, so that a resume, a batch size or a rank cannot change them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

WORD = 2**32


def hash_key(*key: int) -> int:
    """A 64-bit seed that is a pure function of `key`, integers in [0, 2**64)."""
    if not key or any(not 0 <= part < WORD**2 for part in key):
        raise ValueError(f"a key is one or more integers in [0, 2**64), got {key}")
    # SeedSequence pads with zeros: without the length, (7,) and (7, 0) would be the same key.
    words = [len(key), *(word for part in key for word in divmod(part, WORD))]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0])


def keyed_generator(*key: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator whose stream is a pure function of `key` (and of the kind of device)."""
    return torch.Generator(device=device).manual_seed(hash_key(*key))


class SampleNoise:
    """Gaussian noise in which every sample owns a stream, decided by `(seed, its index)` alone.

    Drawn on the CPU: batch size, order, process and device change nothing.

    indices: the samples of this batch, each in [0, 2**32). shape: of one sample.
    """

    def __init__(self, seed: int, indices: Sequence[int] | Tensor, shape: Sequence[int]) -> None:
        # A CPU generator listens to 32 bits of its seed. Hashing every index would give two of 50 000 samples the same
        # stream one time in four; an odd multiple is a bijection of the index.
        start = hash_key(seed)
        seeds = [(start + 0x9E3779B9 * int(index)) % WORD for index in indices]
        self.generators = [torch.Generator().manual_seed(number) for number in seeds]
        self.shape = tuple(shape)

    def draw(self) -> Tensor:
        """The next draw of every sample, `(len(indices), *shape)` float32 on the CPU."""
        noise = torch.empty(len(self.generators), *self.shape)
        for row, generator in zip(noise, self.generators, strict=True):
            row.normal_(generator=generator)
        return noise
