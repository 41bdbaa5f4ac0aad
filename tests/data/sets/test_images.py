from __future__ import annotations

import pytest
import torch

from flowexp.data import ImageSet, to_float, to_uint8


def image_set(num: int) -> ImageSet:
    images = torch.arange(num, dtype=torch.uint8).reshape(num, 1, 1, 1).expand(num, 1, 2, 2).contiguous()
    return ImageSet(images, torch.arange(num))


def test_bytes_span_minus_one_to_one():
    floats = to_float(torch.tensor([0, 255], dtype=torch.uint8))
    assert floats.dtype == torch.float32 and floats.tolist() == [-1.0, 1.0]


def test_every_byte_survives_the_way_to_float_and_back():
    every = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(every)), every)


def test_floats_are_not_taken_for_stored_pictures():
    with pytest.raises(ValueError, match=r"needs stored pictures, uint8, got .*: latents are data"):
        to_float(torch.zeros(3))


def test_samples_outside_the_range_are_clamped():
    assert to_uint8(torch.tensor([-7.0, 7.0, 0.0])).tolist() == [0, 255, 128]


def test_to_uint8_is_the_formula_of_sit_and_changes_nothing_in_place():
    samples = torch.randn(1000)
    kept = samples.clone()
    assert torch.equal(to_uint8(samples), torch.clamp(127.5 * samples + 128.0, 0, 255).to(torch.uint8))
    assert torch.equal(samples, kept)


def test_half_precision_samples_are_rounded_in_float32():
    samples = torch.linspace(-1, 1, 1001, dtype=torch.bfloat16)
    assert torch.equal(to_uint8(samples), to_uint8(samples.float()))


def test_select_gathers_images_with_their_labels():
    chosen = image_set(9).select(torch.tensor([7, 0, 7]))
    assert chosen.labels.tolist() == [7, 0, 7] == chosen.images[:, 0, 0, 0].tolist()


def test_subsets_are_nested_fixed_and_random():
    whole = image_set(200)
    small, large = whole.subset(20).labels.tolist(), whole.subset(50).labels.tolist()
    assert large[:20] == small == image_set(200).subset(20).labels.tolist()
    assert len(set(large)) == 50 and sorted(large) != list(range(50))


@pytest.mark.parametrize("num", [0, -1, 201])
def test_a_subset_larger_than_the_set_is_refused(num: int):
    with pytest.raises(ValueError, match=rf"1\.\.200 images, got {num}"):
        image_set(200).subset(num)
