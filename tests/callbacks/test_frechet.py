from __future__ import annotations

import math

import pytest
import torch

from flowexp.callbacks.frechet import FrechetMonitor
from flowexp.encoders.base import FeatureNet
from flowexp.metrics import FeatureMoments, frechet_distance
from flowexp.sampling import Samples


class Patches(FeatureNet):
    """Means of the four quarters of a picture: features cheap enough for a test."""

    name = "patches"
    dim = 4

    def __init__(self):
        super().__init__()
        self.pictures_seen = 0

    def features(self, images):
        self.pictures_seen += len(images)
        return torch.nn.functional.avg_pool2d(images[:, :1].float() / 255, 4).flatten(1)

    def protocol(self):
        return {"encoder": self.name}


def monitor(tmp_path, **options):
    return FrechetMonitor(Patches(), **{"num_samples": 40, "batch_size": 16, "cache": tmp_path} | options)


def measure(monitor, module, datamodule, seed=0):
    with module.averaged():
        return monitor.measure(module, datamodule, seed)


class Copies:
    """A sampler that has learned the training set by heart."""

    def __init__(self, images):
        self.images = images

    def sample(self, backbone, interpolant, indices, shape, seed, label=None, device="cpu"):
        return Samples(self.images[list(indices)], nfe=3)

    def protocol(self):
        return {"solver": "copies"}


def test_samples_that_are_the_training_set_are_at_distance_zero(tmp_path, module, datamodule):
    module.sampler = Copies(datamodule.train.images.float() / 127.5 - 1)
    found = measure(monitor(tmp_path, num_samples=len(datamodule.train), batch_size=500), module, datamodule)
    assert found.scalars["frechet/patches"] == pytest.approx(0, abs=1e-8)


def test_the_distance_is_that_of_the_numbered_samples_to_the_split(tmp_path, module, datamodule):
    found = measure(monitor(tmp_path, reference_split="test"), module, datamodule, seed=5)
    from flowexp.data import to_uint8

    net, own, other = Patches(), FeatureMoments(4), FeatureMoments(4)
    own.update(net(to_uint8(module.sample(range(40), seed=5).images)))
    other.update(net(datamodule.test.images))
    a, b = own.compute(), other.compute()
    expected = float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    assert found.scalars == {"frechet/patches": pytest.approx(expected, rel=1e-6)}


def test_the_batch_size_changes_nothing(tmp_path, module, datamodule):
    values = [
        measure(monitor(tmp_path, batch_size=size), module, datamodule).scalars["frechet/patches"] for size in (7, 40)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3)  # rounding to uint8 may flip a pixel


def test_the_protocol_holds_what_a_reader_needs(tmp_path, module, datamodule):
    protocol = measure(monitor(tmp_path), module, datamodule, seed=7).protocol
    assert {key: protocol[key] for key in ("num_samples", "reference", "num_reference", "nfe", "seed", "weights")} == {
        "num_samples": 40,
        "reference": "digits/train",
        "num_reference": len(datamodule.train),
        "nfe": 2,
        "seed": 7,
        "weights": "ema",
    }
    assert protocol["sampler"]["solver"] == "euler" and protocol["features"] == {"encoder": "patches"}


def test_the_dataset_is_encoded_once(tmp_path, module, datamodule):
    first, second = monitor(tmp_path), monitor(tmp_path)
    values = [measure(m, module, datamodule).scalars["frechet/patches"] for m in (first, second)]
    assert first.encoder.pictures_seen == len(datamodule.train) + 40
    assert second.encoder.pictures_seen == 40
    assert values[0] == values[1]


def test_another_training_subset_is_another_reference(tmp_path, module, datamodule):
    whole, part = monitor(tmp_path), monitor(tmp_path, max_reference=100)
    found = [measure(m, module, datamodule) for m in (whole, part)]
    assert [m.protocol["num_reference"] for m in found] == [len(datamodule.train), 100]
    assert found[0].scalars != found[1].scalars


def test_one_diverged_sample_is_an_error_and_not_a_black_picture(tmp_path, module, datamodule):
    images = datamodule.train.images[:40].float() / 127.5 - 1
    images[3, 0, 0, 0] = math.nan
    module.sampler = Copies(images)
    with pytest.raises(ValueError, match="the samples have diverged"):
        measure(monitor(tmp_path), module, datamodule)


def test_the_encoder_never_enters_the_modules_state(tmp_path, module, datamodule):
    names = list(module.state_dict())
    measure(monitor(tmp_path), module, datamodule)
    assert list(module.state_dict()) == names


def test_inceptions_distance_alone_is_recorded_as_fid(tmp_path, module, datamodule):
    class Named(Patches):
        distance_name = "fid"

    found = measure(FrechetMonitor(Named(), num_samples=8, cache=tmp_path), module, datamodule)
    assert found.name == "fid" and list(found.scalars) == ["fid"]
    other = measure(monitor(tmp_path), module, datamodule)
    assert other.name == "frechet_patches"


def test_the_default_features_measure_digits(tmp_path, module, datamodule):
    small = replace_train(datamodule, 60)
    found = measure(FrechetMonitor({"name": "efficientnet_lite", "input_size": 48}, 20, cache=tmp_path), module, small)
    assert found.scalars["frechet/efficientnet_lite"] > 0


def replace_train(datamodule, num):
    datamodule._loaded = (datamodule.train.subset(num), datamodule.test)
    return datamodule


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_samples": 1}, "at least 2 samples"),
        ({"reference_split": "val"}, "train or test, got 'val'"),
        ({"precision": "16"}, "32-true, bf16-mixed, got '16'"),
        ({"every_n_steps": 0}, "at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_training(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        monitor(tmp_path, **options)
