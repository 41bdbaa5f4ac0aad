from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch

from flowexp.records.files import fingerprint
from flowexp.records.files.fingerprint import Fingerprint

BYTES = bytes(range(24))


@pytest.mark.parametrize(
    "same",
    [
        np.frombuffer(BYTES, np.uint8),
        np.frombuffer(BYTES, np.uint8).reshape(2, 3, 4),
        np.frombuffer(BYTES, np.float16),
        torch.frombuffer(bytearray(BYTES), dtype=torch.bfloat16),
        torch.frombuffer(bytearray(BYTES), dtype=torch.float32).requires_grad_(),
    ],
)
def test_content_is_known_by_its_bytes_whatever_holds_them(same):
    assert fingerprint.of_content(same) == hashlib.blake2b(BYTES, digest_size=8).hexdigest()


@pytest.mark.parametrize("array", [np.arange(6).reshape(2, 3), torch.arange(6).view(2, 3)])
def test_the_order_of_elements_counts_and_not_how_they_lie_in_memory(array):
    assert fingerprint.of_content(array.T) == fingerprint.of_content(*[array[:, i] for i in range(3)])
    assert fingerprint.of_content(array.T) != fingerprint.of_content(array)


@pytest.mark.parametrize("empty", ["", b"", np.empty((0, 3)), torch.empty(0, 3)])
def test_nothing_adds_nothing(empty):
    assert fingerprint.of_content(empty, "a") == fingerprint.of_content("a")


def test_a_file_is_known_by_its_content(tmp_path: Path):
    (tmp_path / "a").write_bytes(BYTES)
    assert fingerprint.of_file(tmp_path / "a") == fingerprint.of_content(BYTES)
    assert fingerprint.md5_of(tmp_path / "a") == fingerprint.md5_of(BYTES) == hashlib.md5(BYTES).hexdigest()


def test_weights_are_known_by_their_names_too():
    weight, bias = torch.ones(2), torch.zeros(2)
    found = {
        fingerprint.of_weights(weights.items())
        for weights in ({"a": weight, "b": bias}, {"a": bias, "b": weight}, {"a": weight, "c": bias})
    }
    assert len(found) == 3


def test_plain_values_are_known_by_what_they_are_not_by_the_order_of_keys():
    assert fingerprint.of_values({"a": 1, "b": [2]}) == fingerprint.of_values({"b": (2,), "a": 1})
    assert fingerprint.of_values({"a": 1}) != fingerprint.of_values({"a": 2})
    assert fingerprint.of_values({}, digits=8) == hashlib.sha256(b"{}").hexdigest()[:8]


def test_a_longer_fingerprint_is_as_long_as_it_should_be():
    assert (len(Fingerprint().raw), len(Fingerprint(16).raw), len(Fingerprint(16).digits)) == (8, 16, 32)
