from __future__ import annotations

import math

import pytest
import torch

from flowexp.measuring.metrics import FeatureStore


def test_features_come_back_in_the_order_of_their_images():
    features, order = torch.randn(20, 3), torch.randperm(20)
    store = FeatureStore(20, 3)
    for rows in order.split(6):
        store.update(features[rows], rows)
    assert torch.equal(store.gather(), features)
    assert torch.equal(store.gather(), features)


def test_many_features_lie_in_a_file_that_goes_with_the_store(tmp_path):
    features = torch.randn(20, 3)
    store = FeatureStore(20, 3, tmp_path, in_memory=20 * 3 * 4 - 1)
    assert [file.stat().st_size for file in tmp_path.glob("features_*/features")] == [240]
    store.update(features, torch.arange(20))
    assert torch.equal(store.gather(), features)
    del store
    assert not list(tmp_path.iterdir())


def test_few_features_touch_no_file(tmp_path):
    FeatureStore(20, 3, tmp_path, in_memory=20 * 3 * 4)
    assert not list(tmp_path.iterdir())


def test_an_image_that_is_missing_or_came_twice_is_named():
    store = FeatureStore(4, 2)
    store.update(torch.zeros(2, 2), torch.tensor([0, 1]))
    store.update(torch.zeros(2, 2), torch.tensor([1, 3]))
    with pytest.raises(ValueError, match=r"each of 4 images must be added once; \[1, 2\] were not"):
        store.gather()


def test_features_that_are_not_finite_are_refused():
    store = FeatureStore(2, 2)
    store.update(torch.tensor([[1.0, math.inf], [0.0, 0.0]]), torch.arange(2))
    with pytest.raises(ValueError, match="samples have diverged"):
        store.gather()


def test_features_of_another_network_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, 2\), got \(2, 5\)"):
        FeatureStore(2, 2).update(torch.zeros(2, 5), torch.arange(2))
