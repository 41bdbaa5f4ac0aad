"""Captions as hashed words: no network, no download, and no understanding."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from flowexp.records.files import fingerprint

_WORD = re.compile(r"\w+")


class HashedWords:
    """Each word of a caption as a fixed vector of random signs, `length` of them; zeros after the caption.

    Not a language model: "sneaker" is as far from "shoe" as from any other word. Two words have a cosine of mean 0 and
    variance 1 / `dim`. Entries are of size 1, as those of a normalised text network are. Case and punctuation are
    dropped, and places are not marked: a network that marks none either, such as MMDiT, reads a bag of words. The empty
    caption is all zeros. The signs are bits of SHAKE-128 of the word in UTF-8, the same everywhere and at all times.

    Arguments:
        dim: D, of a word's vector.
        length: L, words of a caption; further ones are cut off.

    Raises:
        ValueError: a number below 1.
    """

    name = "hashed_words"

    def __init__(self, dim: int = 128, length: int = 16) -> None:
        if dim < 1 or length < 1:
            raise ValueError(f"dim and length must be at least 1, got {dim} and {length}")
        self.dim = dim
        self.length = length

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D) of an embedded caption."""
        return self.length, self.dim

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of what stands in for weights: the vector of one word."""
        return fingerprint.of_content(self.encode(["fingerprint"])[0, 0].to(torch.int8))

    def encode(self, captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """The embeddings (B, L, D), float32, of captions: -1 and 1 where there is a word, else 0."""
        found = torch.zeros(len(captions), *self.shape)
        for row, caption in zip(found, captions, strict=True):
            for place, word in enumerate(words_of(caption)[: self.length]):
                row[place] = torch.from_numpy(signs_of(word, self.dim))
        return found.to(device)


def words_of(caption: str) -> list[str]:
    """The words of a caption in lower case.

    >>> words_of("A grey T-shirt, size 2.")
    ['a', 'grey', 't', 'shirt', 'size', '2']
    """
    return _WORD.findall(caption.lower())


@lru_cache(maxsize=2**14)
def signs_of(word: str, dim: int) -> np.ndarray:
    """The vector (dim,) of a word, float32 -1 and 1: the first bits of its hash, the highest of each byte first."""
    digest = hashlib.shake_128(word.encode()).digest(-(-dim // 8))
    bits = np.unpackbits(np.frombuffer(digest, dtype=np.uint8))[:dim]
    return 2 * bits.astype(np.float32) - 1
