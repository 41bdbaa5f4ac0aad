from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from flowexp.data import DataError, Digits
from flowexp.data.datasets.digits import _read_digits, read_table


@pytest.fixture(scope="module")
def digits() -> Digits:
    datamodule = Digits()
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def test_the_images_are_those_of_scikit_learn(digits: Digits):
    from sklearn.datasets import load_digits

    pixels, labels = load_digits(return_X_y=True)
    expected = {(label, *row) for label, row in zip(labels.tolist(), pixels.astype(int).tolist(), strict=True)}
    images = torch.cat([digits.train.images, digits.test.images]).flatten(1)
    labels = torch.cat([digits.train.labels, digits.test.labels])
    sixteenths = (images.float() * (16 / 255)).round().int()
    found = {(label, *row) for label, row in zip(labels.tolist(), sixteenths.tolist(), strict=True)}
    assert found == expected and len(images) == 1797


def test_the_grey_levels_span_the_bytes(digits: Digits):
    levels = torch.unique(digits.train.images)
    assert np.array_equal(levels.numpy(), np.rint(np.arange(17) * 255 / 16))


def test_the_split_is_fixed_and_has_all_classes_in_equal_shares(digits: Digits):
    assert digits.train.images.shape == (1437, 1, 8, 8) and digits.test.images.shape == (360, 1, 8, 8)
    held_out = digits.test.labels.bincount() / (digits.test.labels.bincount() + digits.train.labels.bincount())
    assert held_out.sub(0.2).abs().max() < 0.01
    assert digits.test.labels[:12].tolist() == FIRST_HELD_OUT


def test_neither_part_is_sorted_by_class(digits: Digits):
    assert len(digits.test.labels[:50].unique()) == 10 == len(digits.train.labels[:50].unique())


def test_scikit_learn_itself_is_not_imported(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # an import would raise
    Digits().setup()


def test_a_release_with_the_file_elsewhere_is_asked_for_the_digits(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    moved = SimpleNamespace(origin=str(tmp_path / "sklearn" / "__init__.py"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: moved)
    pixels, labels = read_table()
    assert pixels.shape == (1797, 64) and labels.shape == (1797,)


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    _read_digits.cache_clear()
    with pytest.raises(DataError, match="pip install scikit-learn"):
        Digits().setup()


# A fixed permutation is part of the dataset: numbers from different versions are of the same split.
FIRST_HELD_OUT = [4, 1, 2, 6, 0, 1, 6, 7, 1, 5, 4, 2]
