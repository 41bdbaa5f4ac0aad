from __future__ import annotations

import pytest
import torch

from flowexp.measuring.metrics import nearest_neighbours, neighbours
from flowexp.measuring.metrics.neighbours import full_fp32, smallest


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch):
    monkeypatch.setattr(neighbours, "ROWS", 16)
    monkeypatch.setattr(neighbours, "COLUMNS", 24)


def test_nearest_is_the_smallest_of_all_distances():
    samples, reference = torch.randn(37, 6), torch.randn(55, 6)
    expected = torch.cdist(samples.double(), reference.double()).min(1)
    found = nearest_neighbours(samples, reference)
    torch.testing.assert_close(found.distances, expected.values)
    assert torch.equal(found.places, expected.indices)


def test_a_copy_of_a_training_image_lies_at_exactly_zero():
    reference = torch.rand(60, 2048) * 3
    assert nearest_neighbours(reference[[41, 7]], reference).distances.tolist() == [0, 0]
    assert nearest_neighbours(reference[[41, 7]], reference).places.tolist() == [41, 7]


def test_several_smallest_come_in_order_over_all_blocks():
    samples, others = torch.randn(33, 4), torch.randn(50, 4)
    distances, places = smallest(samples, others, 5)
    expected = torch.cdist(samples, others).square().topk(5, largest=False)
    torch.testing.assert_close(distances, expected.values, rtol=1e-4, atol=1e-5)
    assert torch.equal(places, expected.indices)


def test_a_common_offset_costs_no_precision():
    samples, others = torch.randn(20, 8), torch.randn(30, 8)
    near, far = smallest(samples, others, 1)[0], smallest(samples + 1000, others + 1000, 1)[0]
    torch.testing.assert_close(far, near, rtol=1e-2, atol=1e-3)


def test_more_neighbours_than_images_are_refused():
    with pytest.raises(ValueError, match="4 neighbours need at least as many images, got 3"):
        smallest(torch.randn(5, 2), torch.randn(3, 2), 4)


def test_the_callers_precision_of_products_comes_back():
    torch.set_float32_matmul_precision("high")
    try:
        with full_fp32():
            assert torch.get_float32_matmul_precision() == "highest"
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision("highest")
