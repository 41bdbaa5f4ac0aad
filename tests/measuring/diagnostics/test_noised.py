from __future__ import annotations

import pytest
import torch

from flowexp.data import to_float
from flowexp.measuring.diagnostics.noised import BLOCK, along_levels, further_noise, noised_batches


def noise_of(images, batch_size, level=0.1, seed=0):
    return torch.cat([batch.noise for batch in noised_batches(images, level, seed, batch_size)])


def test_an_images_noise_does_not_depend_on_the_batch_size_or_on_later_images():
    images = torch.zeros(BLOCK + 40, 1, 3, 3)
    whole = noise_of(images, 1000)
    assert torch.equal(noise_of(images, 7), whole)
    assert torch.equal(noise_of(images[: BLOCK + 5], 64), whole[: BLOCK + 5])


def test_every_image_level_and_seed_has_noise_of_its_own():
    images = torch.zeros(2 * BLOCK, 1, 3, 3)
    noise = [noise_of(images, 256), noise_of(images, 256, level=0.2), noise_of(images, 256, seed=1)]
    assert len(torch.cat(noise).flatten(1).unique(dim=0)) == 6 * BLOCK


def test_batches_cover_the_set_in_order():
    images = torch.randint(0, 256, (BLOCK + 3, 1, 2, 2), dtype=torch.uint8)
    batches = list(noised_batches(images, 0.25, 0, 100, prepare=to_float))
    assert [row for batch in batches for row in range(*batch.rows.indices(len(images)))] == list(range(len(images)))
    torch.testing.assert_close(torch.cat([batch.data for batch in batches]), to_float(images))
    assert all((batch.t == 0.25).all() and len(batch.t) == len(batch.data) for batch in batches)


def test_bytes_without_a_way_to_floats_are_refused():
    with pytest.raises(ValueError, match=r"need prepare, such as flowexp\.data\.to_float"):
        next(noised_batches(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), 0.1, 0, 1))


def test_further_noise_belongs_to_the_image_as_its_noise_does():
    images = torch.zeros(BLOCK + 40, 1, 3, 3)
    draws = [
        torch.cat([further_noise(batch, 0.1, 0, 1) for batch in noised_batches(images, 0.1, 0, size)])
        for size in (256, 7)
    ]
    assert torch.equal(*draws)
    second = torch.cat([further_noise(batch, 0.1, 0, 2) for batch in noised_batches(images, 0.1, 0, 256)])
    assert len(torch.cat([draws[0], second, noise_of(images, 256)]).flatten(1).unique(dim=0)) == 3 * len(images)


def test_each_image_keeps_its_label():
    labels = torch.arange(BLOCK + 40)
    batches = noised_batches(torch.zeros(BLOCK + 40, 1, 1, 1), 0.1, 0, 30, labels=labels)
    assert torch.equal(torch.cat([batch.label for batch in batches]), labels)


def test_a_walk_over_levels_gives_each_point_what_was_found_of_all_images():
    images, labels = torch.randn(30, 1, 2, 2), torch.arange(30)
    parts = along_levels(
        lambda batch, level: torch.stack([batch.noise.flatten(1)[:, 0], batch.label + level]),
        lambda level, found: (level, found),
        images, [0.5, 0.1], 0, labels=labels, batch_size=7,
    )  # fmt: skip
    for (level, found), expected in zip(parts, [0.5, 0.1], strict=True):
        assert level == expected
        assert torch.equal(found[0], noise_of(images, 30, level).flatten(1)[:, 0])
        assert torch.equal(found[1], labels + level)
