from __future__ import annotations

import pytest
import torch

from flowexp.data.sets.identity import fingerprint_of_pixels
from flowexp.measuring.metrics import Moments, Needs, ReferenceCache, Statistics

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
    assert (
        len(
            {
                fingerprint_of_pixels(images),
                fingerprint_of_pixels(changed),
                fingerprint_of_pixels(images.view(1, 2, 4, 4)),
            }
        )
        == 3
    )
    assert fingerprint_of_pixels(images) == fingerprint_of_pixels(images.clone())


def test_features_come_back_mapped_from_their_file(tmp_path):
    features = torch.randn(50, 7)
    cache = ReferenceCache(tmp_path / "new folder")
    assert cache.load_features(KEY) is None
    cache.save_features(KEY, features)
    assert torch.equal(cache.load_features(KEY), features)
    path = cache.features_path(KEY)
    assert {file.name for file in path.parent.iterdir()} == {path.name, path.with_suffix(".json").name}


def test_half_the_room_costs_three_digits(tmp_path):
    features = torch.rand(50, 7)
    whole, half = ReferenceCache(tmp_path), ReferenceCache(tmp_path, dtype="float16")
    whole.save_features(KEY, features)
    half.save_features(KEY, features)
    assert half.features_path(KEY) != whole.features_path(KEY)
    assert half.features_path(KEY).stat().st_size < whole.features_path(KEY).stat().st_size
    torch.testing.assert_close(half.load_features(KEY).float(), features, rtol=1e-3, atol=1e-6)


def test_what_is_changed_in_memory_does_not_reach_the_file(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.save_features(KEY, torch.ones(3, 2))
    cache.load_features(KEY).zero_()
    assert torch.equal(cache.load_features(KEY), torch.ones(3, 2))


def test_truncated_features_count_as_missing(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.save_features(KEY, torch.randn(50, 7))
    path = cache.features_path(KEY)
    for keep in (-4, 20, 0):
        path.write_bytes(path.read_bytes()[:keep])
        assert cache.load_features(KEY) is None


def flip_a_byte(path) -> None:
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)


def test_one_wrong_byte_makes_a_file_count_as_missing(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    cache.save(KEY, moments)
    cache.save_features(KEY, torch.randn(50, 7))
    assert cache.load(KEY) is not None and cache.load_features(KEY) is not None
    for path in (cache.path(KEY), cache.features_path(KEY)):
        flip_a_byte(path)
    assert cache.load(KEY) is None and cache.load_features(KEY) is None


def test_features_whose_fingerprint_is_lost_count_as_missing(tmp_path):
    cache = ReferenceCache(tmp_path)
    cache.save_features(KEY, torch.randn(50, 7))
    cache.features_path(KEY).with_suffix(".json").unlink()
    assert cache.load_features(KEY) is None


def test_what_is_counted_missing_is_made_anew_and_found(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    for _ in range(2):
        cache.save_statistics(KEY, Statistics({"features": moments}, torch.ones(9, 3)))
        found = cache.load_statistics(KEY, Needs(("features",), features=True))
        assert found is not None and torch.equal(found.features, torch.ones(9, 3))
        flip_a_byte(cache.features_path(KEY))


def test_statistics_are_found_only_where_every_part_is(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    spatial = moments._replace(count=9)
    cache.save_statistics(KEY, Statistics({"features": moments, "spatial": spatial}))
    found = cache.load_statistics(KEY, Needs(("features", "spatial")))
    assert found is not None and found.moments["features"].count == 7 and found.moments["spatial"].count == 9
    assert cache.load_statistics(KEY, Needs(("features",), features=True)) is None
    cache.save_statistics(KEY, Statistics(features=torch.ones(3, 2)))
    found = cache.load_statistics(KEY, Needs(("features",), features=True))
    assert found is not None and found.features is not None and found.features.shape == (3, 2)
    assert cache.load_statistics(KEY | {"split": "test"}, Needs(("features",))) is None


def test_moments_of_features_are_found_where_they_always_were(tmp_path, moments):
    cache = ReferenceCache(tmp_path)
    cache.save_statistics(KEY, Statistics({"features": moments}))
    assert cache.load(KEY) is not None


def test_features_are_stored_in_one_of_two_types(tmp_path):
    with pytest.raises(ValueError, match="one of float32, float16, got 'int8'"):
        ReferenceCache(tmp_path, dtype="int8")
