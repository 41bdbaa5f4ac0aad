from __future__ import annotations

from itertools import chain, islice, repeat
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from flowexp.data import Batch, BatchLoader, ImageSet


def rows_with_names(num: int) -> ImageSet:
    """Images that say which row they are, and whether they are mirrored: (row, row + 1) along the width."""
    rows = torch.arange(num, dtype=torch.uint8)
    images = torch.stack((rows, rows + 1), dim=-1).reshape(num, 1, 1, 2)
    return ImageSet(images, torch.arange(num))


def loader(num: int = 22, batch_size: int = 4, **options: int | bool) -> BatchLoader:
    return BatchLoader(rows_with_names(num), batch_size, **options)


def labels(batches: list[Batch]) -> list[int]:
    return torch.cat([batch["label"] for batch in batches]).tolist()


def mirrored(batch: Batch) -> Tensor:
    return batch["image"][:, 0, 0, 0] > batch["image"][:, 0, 0, 1]


def forever(batches: BatchLoader, num: int) -> list[Batch]:
    """The next num batches, pass after pass."""
    return list(islice(chain.from_iterable(repeat(batches)), num))


def same(one: list[Batch], other: list[Batch]) -> bool:
    return len(one) == len(other) and all(
        torch.equal(a[key], b[key]) for a, b in zip(one, other, strict=True) for key in ("image", "label")
    )


def test_a_batch_is_bytes_and_integer_labels_of_the_same_rows():
    batch = next(iter(loader()))
    assert batch["image"].shape == (4, 1, 1, 2) and batch["image"].dtype == torch.uint8
    assert batch["label"].dtype == torch.int64
    assert torch.equal(batch["image"][:, 0, 0, 0].long(), batch["label"])


def test_an_epoch_sees_every_row_at_most_once_and_drops_the_incomplete_batch():
    seen = labels(list(loader()))
    assert len(loader()) == 5 and len(seen) == 20 == len(set(seen))
    assert set(seen) <= set(range(22))


def at(batches: BatchLoader, step: int) -> Batch:
    """The batch of a step, reached without those before it."""
    batches.step = step
    return next(iter(batches))


def test_step_s_is_served_batch_s_of_its_epoch():
    batches = loader(seed=3)
    assert same(forever(batches, 7), [at(loader(seed=3), step) for step in range(7)])


def test_the_order_is_a_function_of_seed_and_epoch_alone():
    first, second = loader(seed=3), loader(seed=3)
    at(second, 7 * len(second))
    second.step = 0
    assert same(list(first), list(second))
    assert labels(list(loader(seed=3))) != labels(list(loader(seed=4)))


def test_a_finished_pass_is_followed_by_the_next_epoch_in_another_order():
    passes = loader()
    first, second = list(passes), list(passes)
    jumped = loader()
    jumped.step = len(jumped)
    assert same(second, list(jumped)) and labels(first) != labels(second)


@pytest.mark.parametrize("world_size", [1, 2, 4])
def test_the_slices_of_all_ranks_are_the_global_batch_with_its_flips(world_size: int):
    whole = list(loader(40, 8, flip=True, seed=1))
    ranks = [list(loader(40, 8, flip=True, seed=1, rank=rank, world_size=world_size)) for rank in range(world_size)]
    joined = [
        {key: torch.cat([part[key] for part in parts]) for key in ("image", "label")}
        for parts in zip(*ranks, strict=True)
    ]
    assert all(batch["label"].shape == (8 // world_size,) for batch in ranks[0])
    assert same(joined, whole)


def test_flips_mirror_about_half_of_the_rows_and_are_drawn_anew_each_epoch():
    passes = loader(200, 20, flip=True)
    first, second = (torch.cat([mirrored(batch) for batch in passes]) for _ in range(2))
    assert 60 < first.sum() < 140 and 60 < (first ^ second).sum() < 140


def test_a_flip_moves_columns_only():
    images = torch.randint(0, 256, (50, 3, 4, 6), dtype=torch.uint8)
    batch = next(iter(BatchLoader(ImageSet(images, torch.arange(50)), 50, flip=True)))
    kept = (batch["image"] == images[batch["label"]]).flatten(1).all(1)
    turned = (batch["image"].flip(-1) == images[batch["label"]]).flatten(1).all(1)
    assert bool((kept ^ turned).all()) and bool(kept.any()) and bool(turned.any())


def test_without_flip_nothing_is_mirrored():
    assert not any(mirrored(batch).any() for batch in loader())


def test_memory_mapped_images_give_the_same_batches(tmp_path: Path):
    images = rows_with_names(22)
    np.save(tmp_path / "images.npy", images.images.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "images.npy", mmap_mode="c"))
    assert same(list(BatchLoader(ImageSet(mapped, images.labels), 4, flip=True)), list(loader(flip=True)))


def test_a_batch_is_a_copy_that_may_be_written():
    images = rows_with_names(8)
    for batch in BatchLoader(images, 4):
        batch["image"].zero_()
    assert torch.equal(images.images, rows_with_names(8).images)


class Prepared(ImageSet):
    """Images whose batches are prepared in another thread before they are asked for."""

    prefetch = 2


@pytest.mark.parametrize("kind", [ImageSet, Prepared])
@pytest.mark.parametrize("stop", [0, 1, 3, 5, 7])
def test_a_loaded_state_goes_on_where_it_was_saved(stop: int, kind: type[ImageSet]):
    expected, images = forever(loader(flip=True), 15), rows_with_names(22)
    halted, resumed = (BatchLoader(kind(images.images, images.labels), 4, flip=True) for _ in range(2))
    before = forever(halted, stop)
    resumed.load_state_dict(halted.state_dict())
    assert same(before + forever(resumed, 15 - stop), expected)


def test_a_pass_has_the_same_length_wherever_it_starts():
    resumed = loader()
    resumed.load_state_dict({**resumed.state_dict(), "step": 3})
    assert len(resumed) == 5 == len(list(resumed))


def test_an_abandoned_pass_is_continued():
    halted = loader()
    assert same(list(islice(halted, 3)) + list(halted), forever(loader(), 8))


def test_asking_for_an_iterator_serves_nothing():
    once = loader()
    iter(once), iter(once)
    assert once.step == 0


def test_the_position_is_the_same_on_every_rank_so_that_the_world_may_change():
    wide = loader(40, 8, rank=3, world_size=4)
    list(islice(wide, 2))
    alone = loader(40, 8)
    alone.load_state_dict(wide.state_dict())
    assert same(forever(alone, 4), forever(loader(40, 8), 6)[2:])


@pytest.mark.parametrize("other", [{"seed": 1}, {"batch_size": 2}, {"num": 21}])
def test_a_state_of_other_data_is_refused(other: dict[str, int]):
    with pytest.raises(ValueError, match="resume with the same data settings"):
        loader(**other).load_state_dict(loader().state_dict())


def test_a_batch_larger_than_the_set_is_refused():
    with pytest.raises(ValueError, match="batch_size must be at most the 3 training images, got 4"):
        loader(3, 4)


def test_a_batch_that_does_not_divide_over_the_processes_is_refused():
    with pytest.raises(ValueError, match="must divide over 3 of them, got 4"):
        loader(22, 4, world_size=3)
