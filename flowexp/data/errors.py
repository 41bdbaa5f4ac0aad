"""What is wrong with the data, in a sentence."""

from __future__ import annotations


class DataError(ValueError):
    """A dataset is missing, damaged or not the one expected; the message says where, and what to do."""


INSTEAD = "or choose data=digits, which needs no download"
