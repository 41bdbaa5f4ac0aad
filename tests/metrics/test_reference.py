from __future__ import annotations

import pytest
import torch

from flowexp.metrics import Moments, ReferenceCache
from flowexp.metrics.reference import fingerprint

KEY = {"dataset": "digits", "split": "train", "input_size": 96}


@pytest.fixture
def moments():
    return Moments(torch.randn(3, dtype=torch.float64), torch.randn(3, 3, dtype=torch.float64), 7)


def test_what_is_saved_is_what_is_loaded(tmp_path, moments):
    cache = ReferenceCache(tmp_path / "new folder")
    cache.save(KEY, moments)
    found = cache.load(dict(reversed(KEY.items())))
    assert found is not None and found.count == 7
    assert torch.equal(found.mean, moments.mean) and torch.equal(found.covariance, moments.covariance)


def test_nothing_but_the_file_is_left_behind(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    cache.save(KEY, moments)
    assert list(tmp_path.iterdir()) == [cache.path(KEY)]


@pytest.mark.parametrize("change", [{"dataset": "cifar10"}, {"split": "test"}, {"input_size": 64}])
def test_another_dataset_split_or_encoder_is_another_entry(tmp_path, moments, change):
    cache = ReferenceCache(tmp_path)
    cache.save(KEY, moments)
    assert cache.load(KEY | change) is None


def test_a_truncated_file_counts_as_missing(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    cache.save(KEY, moments)
    cache.path(KEY).write_bytes(cache.path(KEY).read_bytes()[:-10])
    assert cache.load(KEY) is None


def test_a_fingerprint_changes_with_one_pixel_and_with_the_shape():
    images = torch.zeros(2, 1, 4, 4, dtype=torch.uint8)
    changed = images.clone()
    changed[1, 0, 3, 3] = 1
    assert len({fingerprint(images), fingerprint(changed), fingerprint(images.view(1, 2, 4, 4))}) == 3
    assert fingerprint(images) == fingerprint(images.clone())
