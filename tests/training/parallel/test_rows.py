"""Alone, gathering changes nothing; what it does with two processes, tests/modules/test_training_processes.py shows."""

from __future__ import annotations

import torch

from flowexp.training.parallel.rows import gather_rows, gather_rows_with_gradient, num_processes


def test_alone_all_rows_are_ones_own():
    rows = torch.randn(3, 2, requires_grad=True)
    assert gather_rows(rows) == (rows, 0) and gather_rows_with_gradient(rows) is rows and num_processes() == 1
