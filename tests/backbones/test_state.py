"""A paused pass: maps read as tokens, and rows selected in everything it carries."""

from __future__ import annotations

import pytest
import torch

from flowexp.backbones import State


def test_tokens_stay_tokens_and_a_map_is_read_row_by_row():
    tokens = torch.randn(2, 6, 4)
    assert State(tokens, None, block=1).tokens is tokens
    image = torch.randn(2, 4, 2, 3)
    read = State(image, None, block=1).tokens
    assert read.shape == (2, 6, 4)
    for row in range(2):
        for column in range(3):
            assert torch.equal(read[:, 3 * row + column], image[:, :, row, column])


@pytest.mark.parametrize("rows", [torch.tensor([2, 0]), torch.tensor([False, True, True])])
def test_rows_are_selected_in_every_part(rows):
    parts = [torch.randn(3, 4, 2, 2), torch.randn(3, 5), torch.randn(3, 7), torch.randn(3, 2, 2)]
    chosen = State(parts[0], parts[1], block=2, carried=(parts[2], parts[3])).select(rows)
    found = [chosen.hidden, chosen.condition, *chosen.carried]
    assert all(torch.equal(part, whole[rows]) for part, whole in zip(found, parts, strict=True))
    assert chosen.block == 2


def test_a_pause_without_condition_has_none_after_selecting():
    assert State(torch.randn(3, 5, 4), None, block=0).select(torch.tensor([1])).condition is None
