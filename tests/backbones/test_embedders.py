"""Embeddings against their formulas, number by number."""

from __future__ import annotations

import math

import pytest
import torch

from flowexp.backbones.embedders import LabelEmbedder, TimestepEmbedder, sincos_2d


def test_positions_are_sine_and_cosine_of_the_column_then_of_the_row():
    embedding = sincos_2d(side=3, dim=16)
    assert embedding.shape == (1, 9, 16)
    for row in range(3):
        for column in range(3):
            vector = embedding[0, 3 * row + column]
            for k in range(4):
                omega = 10000 ** (-k / 4)
                quarters = [f(place * omega) for place in (column, row) for f in (math.sin, math.cos)]
                torch.testing.assert_close(vector[k::4], torch.tensor(quarters))


@pytest.mark.parametrize("time_scale", [1.0, 1000.0])
def test_the_sinusoid_of_t_is_cosines_then_sines_from_frequency_1_to_almost_1_in_10000(time_scale: float):
    t = torch.tensor([0.0, 0.25, 1.0])
    sinusoid = TimestepEmbedder(8, time_scale).sinusoid(t)
    assert sinusoid.shape == (3, 256)
    angle = time_scale * t.double()[:, None] * 10000.0 ** (-torch.arange(128, dtype=torch.float64) / 128)
    expected = torch.cat([angle.cos(), angle.sin()], dim=1).float()
    torch.testing.assert_close(sinusoid, expected, atol=1e-3, rtol=0)  # float32 angles of up to 1000


def test_the_sinusoid_is_float32_under_autocast_and_for_half_precision_times():
    with torch.autocast("cpu", torch.bfloat16):
        assert TimestepEmbedder(8, 1000.0).sinusoid(torch.rand(2)).dtype == torch.float32
    t = torch.rand(2).bfloat16()
    torch.testing.assert_close(
        TimestepEmbedder(8, 1000.0).sinusoid(t), TimestepEmbedder(8, 1000.0).sinusoid(t.float()), rtol=0, atol=0
    )


def test_the_last_row_of_the_label_table_is_no_class():
    embedder = LabelEmbedder(num_classes=10, width=4)
    assert embedder.null_label == 10
    assert embedder(torch.tensor([0, 10])).shape == (2, 4)
    assert embedder.embedding_table.weight.shape == (11, 4)
