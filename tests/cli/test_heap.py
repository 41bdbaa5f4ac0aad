"""Large tensors that follow each other take the same pages."""

from __future__ import annotations

import os
import resource

import pytest
import torch

from flowexp.cli.heap import keep_freed_memory


def faults_of_a_tensor():
    """Pages that the system hands out for a tensor of 64 MB, which has 16,384."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


def test_the_pages_of_a_large_tensor_serve_the_next(monkeypatch):
    for name in [name for name in os.environ if name.startswith(("MALLOC_", "GLIBC_TUNABLES", "LD_PRELOAD"))]:
        monkeypatch.delenv(name)
    if not keep_freed_memory():
        pytest.skip("the C library is not glibc")
    # glibc before 2.38 finds room for an aligned tensor only where two that were freed lie side by side
    assert min(faults_of_a_tensor() for _ in range(20)) < 2000


def test_who_has_set_the_heap_keeps_it(monkeypatch):
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "100000")
    assert keep_freed_memory() is False
