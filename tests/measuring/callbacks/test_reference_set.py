"""What is known of a reference lies under a hash of all that decides it, and is computed once."""

from __future__ import annotations

import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from flowexp.data import Digits
from flowexp.data.sets.images import ImageSet
from flowexp.integrations.encoders.base import FeatureNet
from flowexp.measuring.callbacks.reference_set import ReferenceSet, sum_of_pixels
from flowexp.measuring.metrics import MetricPlan, Moments, ReferenceCache, write_adm_batch

PLAN = MetricPlan(("frechet", "precision_recall"))


class Quarters(FeatureNet):
    """Means of the four quarters of a picture; counts the pictures that it has seen."""

    name = "quarters"
    dim = 4
    decided_by: dict[str, Any]

    def __init__(self, **decided_by: Any) -> None:
        super().__init__()
        self.decided_by = {"weights_sha256": "0123", "resize": "none", "input_size": 8} | decided_by
        self.seen = 0

    def features(self, images: torch.Tensor) -> torch.Tensor:
        self.seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1].float() / 255, 2).flatten(1)

    def protocol(self) -> dict[str, Any]:
        return {"encoder": self.name, **self.decided_by}


def digits(**changes: Any) -> Digits:
    """Sixty digits; `changes` become attributes or, as `images`, a change of the pictures."""
    datamodule = Digits(batch_size=8)
    datamodule.setup()
    change = changes.pop("images", lambda images: images)
    train, test = (
        ImageSet(change(part.images[:60]).contiguous(), part.labels[:60])
        for part in (datamodule.train, datamodule.test)
    )
    datamodule._loaded = (train, test)
    for name, value in changes.items():
        setattr(datamodule, name, value)
    return datamodule


def statistics(folder, datamodule=None, encoder=None, source="train", **options):
    reference = ReferenceSet(source, cache=ReferenceCache(folder), **options)
    return reference.statistics(datamodule or digits(), encoder or Quarters(), PLAN, 16, torch.device("cpu"))


@pytest.mark.parametrize(
    "changed",
    [
        {"datamodule": lambda: digits(name="other")},
        {"source": lambda: "test"},
        {"datamodule": lambda: digits(images=lambda images: images.repeat_interleave(2, -1).repeat_interleave(2, -2))},
        {"datamodule": lambda: digits(images=lambda images: images ^ 1)},
        {"encoder": lambda: Quarters(resize="bilinear, antialiased")},
        {"encoder": lambda: Quarters(input_size=16)},
        {"encoder": lambda: Quarters(weights_sha256="4567")},
        {"max_images": lambda: 30},
    ],
    ids=["dataset", "split", "resolution", "pixels", "resize", "input size", "weights", "subset"],
)
def test_whatever_decides_the_features_has_an_entry_of_its_own(tmp_path, changed):
    statistics(tmp_path)
    before = {file.name for file in tmp_path.iterdir()}
    statistics(tmp_path, **{name: make() for name, make in changed.items()})
    fresh = {file.name for file in tmp_path.iterdir()} - before
    assert {name.partition("_")[0] for name in fresh} - {"pixels"} == {"moments", "features"}


def test_the_same_reference_is_encoded_once(tmp_path):
    first, again = Quarters(), Quarters()
    found, other = statistics(tmp_path, encoder=first)[0], statistics(tmp_path, encoder=again)[0]
    assert (first.seen, again.seen) == (60, 0)
    assert torch.equal(found.features, other.features)
    assert torch.equal(found.moments["features"].covariance, other.moments["features"].covariance)


def test_a_damaged_entry_is_made_anew(tmp_path):
    found, encoder = statistics(tmp_path)[0], Quarters()
    (path,) = tmp_path.glob("features_*.npy")
    path.write_bytes(path.read_bytes()[:-64] + bytes(64))
    assert torch.equal(statistics(tmp_path, encoder=encoder)[0].features, found.features)
    assert encoder.seen == 60


def test_a_file_of_adm_is_encoded_once_too_and_another_file_anew(tmp_path):
    files = []
    for number in range(2):
        files.append(str(tmp_path / f"{number}.npz"))
        write_adm_batch(tmp_path / f"{number}.npz", digits().train.images ^ number)
    encoders = [Quarters() for _ in range(3)]
    found = [
        statistics(tmp_path / "cache", encoder=encoder, source=source)[0].features
        for encoder, source in zip(encoders, (files[0], files[0], files[1]), strict=True)
    ]
    assert [encoder.seen for encoder in encoders] == [60, 0, 60]
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_moments_in_a_file_are_inceptions_and_its_features_are_cached_beside_them(tmp_path):
    class Named(Quarters):
        name = "inception"

    dims = {"features": 2048, "spatial": 2023}
    moments = {name: Moments(torch.ones(dim), torch.eye(dim), 9) for name, dim in dims.items()}
    write_adm_batch(tmp_path / "file.npz", digits().train.images, moments)
    for seen in (60, 0):
        encoder = Named()
        found, about = statistics(tmp_path / "cache", encoder=encoder, source=str(tmp_path / "file.npz"))
        assert encoder.seen == seen and found.features.shape == (60, 4)
        assert np.array_equal(found.moments["features"].mean, np.ones(2048)) and about["num"] == 60


def test_a_cache_that_cannot_be_written_changes_no_number(tmp_path):
    (tmp_path / "file").write_text("in the way")
    expected = ReferenceSet().statistics(digits(), Quarters(), PLAN, 16, torch.device("cpu"))[0]
    with pytest.warns(UserWarning, match=f"{tmp_path}/file/moments cannot be written "):
        found = statistics(tmp_path / "file/moments")[0]
    assert torch.equal(found.features, expected.features)
    assert torch.equal(found.moments["features"].covariance, expected.moments["features"].covariance)


def test_pixels_that_changed_unseen_are_noticed_when_all_are_read_again(tmp_path):
    class Unread:
        """What a large set knows of itself: the same for other pixels."""

        fingerprint = "0123456789abcdef"

        def select(self, rows):
            return self

    def changed(images):
        images = images.clone()
        images[7, 0, 0, 0] ^= 1
        return images

    def sampled(change) -> Digits:
        datamodule = digits(images=change)
        train, test = datamodule._loaded
        datamodule._loaded = replace(train, source=Unread()), test
        return datamodule

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        statistics(tmp_path, sampled(lambda images: images))
        statistics(tmp_path, sampled(lambda images: images), Quarters(input_size=16))
    with pytest.warns(UserWarning, match=rf"pictures have changed since {tmp_path}/pixels_.*\.json was written"):
        statistics(tmp_path, sampled(changed), Quarters(input_size=32))


def test_the_sum_of_pixels_depends_on_each_picture_and_its_row_but_not_on_the_batches():
    images, rows = digits().train.images, torch.arange(60)
    whole = sum_of_pixels(rows, images)
    assert whole == sum(sum_of_pixels(part, images[part]) for part in rows.flip(0).split(7))
    assert whole != sum_of_pixels(rows.flip(0), images) and whole != sum_of_pixels(rows, images ^ 1)
