from __future__ import annotations

import gc
import math
import sys
from pathlib import Path

import pytest
import torch

from flowexp.flow.sampler import Sampler, Samples
from flowexp.integrations.encoders.base import FeatureNet
from flowexp.measuring.callbacks.sample_metrics import SampleMetrics
from flowexp.measuring.metrics import FeatureMoments, Moments, frechet_distance, read_adm_reference, write_adm_batch
from flowexp.records.commit import git_commit

sys.path.append(str(Path(__file__).parent))
from processes import random_module


class Patches(FeatureNet):
    """Means of the four quarters of a picture: features cheap enough for a test."""

    name = "patches"
    dim = 4

    def __init__(self):
        super().__init__()
        self.pictures_seen = 0

    def features(self, images):
        self.pictures_seen += len(images)
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1].float() / 255, 2).flatten(1)

    def protocol(self):
        return {"encoder": self.name}


def monitor(tmp_path, **options):
    return SampleMetrics(Patches(), **{"num_samples": 40, "batch_size": 16, "cache": tmp_path} | options)


def measure(monitor, module, datamodule, seed=0):
    with module.averaged():
        return monitor.measure(module, datamodule, seed)


class Copies:
    """A sampler that has learned the training set by heart."""

    def __init__(self, images):
        self.images = images

    corrected = False

    def sample(self, backbone, interpolant, indices, shape, seed, **_):
        return Samples(self.images[list(indices)], nfe=3)

    def protocol(self):
        return {"solver": "copies"}


def test_samples_that_are_the_training_set_are_at_distance_zero(tmp_path, module, datamodule):
    module.sampler = Copies(datamodule.train.images.float() / 127.5 - 1)
    found = measure(monitor(tmp_path, num_samples=len(datamodule.train), batch_size=500), module, datamodule)
    assert found.scalars["frechet/patches"] == pytest.approx(0, abs=1e-8)


@pytest.mark.slow
def test_the_distance_is_that_of_the_numbered_samples_to_the_split(tmp_path, module, datamodule):
    found = measure(monitor(tmp_path, reference="test"), module, datamodule, seed=5)
    from flowexp.data import to_uint8

    net, own, other = Patches(), FeatureMoments(4), FeatureMoments(4)
    own.update(net(to_uint8(module.sample(range(40), seed=5).images)))
    other.update(net(datamodule.test.images))
    a, b = own.compute(), other.compute()
    expected = float(frechet_distance(a.mean, a.covariance, b.mean, b.covariance))
    assert found.scalars == {"frechet/patches": pytest.approx(expected, rel=1e-6)}


def test_one_pass_gives_every_metric(tmp_path, module, datamodule):
    names = ["frechet", "precision_recall", "kid", "nearest_neighbour", "frechet_infinity", "frechet_interval"]
    options = {"kid_subsets": 3, "kid_subset_size": 20, "resamples": 20, "infinity_sizes": 10}
    several = monitor(tmp_path, metrics=names, options=options)
    found = measure(several, module, datamodule).scalars
    assert several.encoder.pictures_seen == len(datamodule.train) + 40
    alone = measure(monitor(tmp_path), module, datamodule).scalars
    assert found["frechet/patches"] == pytest.approx(alone["frechet/patches"])
    assert {"precision/patches", "recall/patches", "mmd/patches", "nearest_neighbour/patches"} < set(found)
    assert found["frechet_low/patches"] < found["frechet/patches"] < found["frechet_high/patches"]


class Twos:
    """A sampler that takes two network calls more in each batch, as an adaptive one may."""

    corrected = False

    def __init__(self):
        self.nfe = 0

    def sample(self, backbone, interpolant, indices, shape, seed, **_):
        self.nfe += 2
        return Samples(torch.randn(len(indices), *shape).clamp(-1, 1), nfe=self.nfe)

    def protocol(self):
        return {"solver": "twos", "rtol": 1e-3}


def test_network_calls_are_counted_over_all_samples_and_not_the_last_batch_alone(tmp_path, module, datamodule):
    module.sampler = Twos()
    found = measure(monitor(tmp_path, num_samples=40, batch_size=16), module, datamodule)
    assert found.protocol["nfe"] == round((16 * 2 + 16 * 4 + 8 * 6) / 40, 2)


class Large:
    """A sampler of pictures that take 200 kB each, and 50 kB as bytes. Notes the bytes of all tensors at each call.

    The memory of the process would also tell of what its allocator kept.
    """

    corrected = False

    def __init__(self):
        self.held = []

    def sample(self, backbone, interpolant, indices, shape, seed, **_):
        storages = {t.untyped_storage().data_ptr(): t.nbytes for t in gc.get_objects() if type(t) is torch.Tensor}
        self.held.append(sum(storages.values()))
        return Samples(torch.rand(len(indices), 3, 128, 128) * 2 - 1, nfe=1)

    def protocol(self):
        return {"solver": "large"}


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_samples(tmp_path, module, datamodule):
    module.sampler = Large()
    measure(monitor(tmp_path, num_samples=100, batch_size=10), module, datamodule)
    first, *_, last = module.sampler.held[1:]
    assert last - first < 2_000_000  # kept as bytes, 80 more pictures would take 4 MB


@pytest.mark.slow
@pytest.mark.parametrize(
    "settings, on_the_card, calls",
    [
        ({"solver": "euler"}, {"stochastic": False, "diffusion": None, "guidance": 1.0, "ssc": None, "guide": None}, 3),
        ({"solver": "heun"}, {"nfe": 5}, 5),
        (
            {"solver": "euler_maruyama", "solver_options": {"diffusion": "sbdm"}},
            {"stochastic": True, "diffusion": "sbdm", "nfe": 3},
            3,
        ),
        ({"solver": "euler", "final_jump": 0.1}, {"nfe": 3}, 3),
        (
            {"solver": "euler", "guidance_scale": 2.0, "guidance_channels": 1},
            {"guidance": 2.0, "guidance_channels": 1, "nfe": 3},
            3,  # of doubled batch
        ),
        (
            {"solver": "euler", "s0": 1.1, "profile": "cosine"},
            {"ssc": {"profile": "cosine", "s0": 1.1, "s1": 1.0}, "nfe": 3},
            3,
        ),
        ({"solver": "euler", "autoguidance_scale": 2.0}, {"nfe": 3}, 3),
    ],
    ids=["ode", "heun", "sde", "jump", "cfg", "ssc", "autoguidance"],
)
def test_the_card_says_what_was_done_and_counts_the_calls(
    tmp_path, conditional_module, datamodule, settings, on_the_card, calls
):
    module, seen = conditional_module, []
    if "autoguidance_scale" in settings:
        module.guide = random_module(num_classes=10).velocity_network
    module.sampler = Sampler(num_steps=3, **settings)
    module.backbone.register_forward_hook(lambda *_: seen.append(1))
    protocol = measure(monitor(tmp_path, batch_size=40, labels="random"), module, datamodule).protocol
    assert len(seen) == protocol["nfe"] == calls
    assert {name: protocol[name] for name in on_the_card} == on_the_card
    assert protocol["labels"] == "random" and protocol["sampler"]["solver"] == settings["solver"]
    assert (protocol["guide"] is not None) == ("autoguidance_scale" in settings)


def cautions(caught) -> list[str]:
    return [str(one.message) for one in caught if "missing in every score" in str(one.message)] + [
        str(one.message) for one in caught if "Frechet distance from" in str(one.message)
    ]


def test_a_class_that_no_sample_has_and_a_singular_covariance_are_warned_of(tmp_path, conditional_module, datamodule):
    with pytest.warns(UserWarning) as caught:
        measure(monitor(tmp_path, num_samples=4, batch_size=4), conditional_module, datamodule)
    classes, distance = cautions(caught)
    assert classes.startswith("4 samples are of at most as many of the network's 10 classes")
    assert distance.startswith("a Frechet distance from 4 samples in 4 dimensions (features)")


@pytest.mark.filterwarnings("error")
def test_enough_samples_are_measured_in_silence(tmp_path, conditional_module, datamodule):
    conditional_module.sampler = Copies(datamodule.train.images.float() / 127.5 - 1)
    measure(monitor(tmp_path, num_samples=20), conditional_module, datamodule)


@pytest.mark.slow
def test_numbers_of_one_card_compare_and_those_of_another_sampler_do_not(tmp_path, module, datamodule):
    def card(seed=0):
        return measure(monitor(tmp_path), module, datamodule, seed).protocol["card"]

    first, again = card(), card(seed=3)
    module.sampler = Sampler("heun", num_steps=2)
    assert first == again != card()


@pytest.mark.slow
def test_every_number_has_a_card_of_its_own_metrics_options(tmp_path, module, datamodule):
    def cards(**options):
        found = measure(monitor(tmp_path, metrics=["frechet", "precision_recall"], options=options), module, datamodule)
        assert {*found.protocol["cards"]} == {*found.scalars}
        assert found.protocol["cards"]["frechet/patches"] == found.protocol["card"]
        return found.protocol["cards"]

    first, other = cards(), cards(k=5)
    assert first["frechet/patches"] == other["frechet/patches"]
    assert first["precision/patches"] != other["precision/patches"]


@pytest.mark.slow
def test_the_card_names_the_commit_and_the_guide(tmp_path, module, conditional_module, datamodule):
    protocol = measure(monitor(tmp_path), module, datamodule).protocol
    assert protocol["commit"] == git_commit() and protocol["guide"] is None
    module.guide = conditional_module.velocity_network
    module.sampler = Sampler("euler", num_steps=2, autoguidance_scale=2.0)
    guided = measure(monitor(tmp_path), module, datamodule).protocol
    assert len(guided["guide"]["weights"]) == 16


def test_all_metrics_are_those_that_the_features_allow(tmp_path):
    chosen = monitor(tmp_path, metrics="all", num_samples=1000).plan.metrics
    assert {"frechet", "precision_recall", "kid"} < set(chosen) and not {"sfid", "inception_score"} & set(chosen)


@pytest.mark.slow
def test_a_reference_file_of_adm_is_taken_as_it_is(tmp_path, module, datamodule):
    pictures = datamodule.train.images
    write_adm_batch(tmp_path / "reference.npz", pictures)
    of_file = measure(monitor(tmp_path, reference=str(tmp_path / "reference.npz")), module, datamodule)
    of_split = measure(monitor(tmp_path), module, datamodule)
    assert of_file.scalars == pytest.approx(of_split.scalars)
    assert of_file.protocol["reference"]["set"] == "reference.npz"
    assert of_file.protocol["reference"]["hash"] == read_adm_reference(tmp_path / "reference.npz").fingerprint


@pytest.mark.slow
def test_the_moments_in_a_reference_file_are_inceptions_and_no_other_networks(tmp_path, module, datamodule):
    dims = {"features": 2048, "spatial": 2023}
    moments = {name: Moments(torch.zeros(dim), torch.eye(dim), 9) for name, dim in dims.items()}
    write_adm_batch(tmp_path / "reference.npz", datamodule.train.images, moments)
    of_file = measure(monitor(tmp_path, reference=str(tmp_path / "reference.npz")), module, datamodule)
    assert of_file.scalars == pytest.approx(measure(monitor(tmp_path), module, datamodule).scalars)


def test_a_reference_of_another_resolution_or_too_few_images_is_refused(tmp_path, module, datamodule):
    write_adm_batch(tmp_path / "large.npz", torch.zeros(9, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(ValueError, match="pictures of 16 x 16, the samples have 8 x 8"):
        measure(monitor(tmp_path, reference=str(tmp_path / "large.npz")), module, datamodule)
    with pytest.raises(ValueError, match="at least 4, got 3 reference images"):
        measure(monitor(tmp_path, metrics=["precision_recall"], max_reference=3), module, datamodule)


def test_classes_are_balanced_or_drawn(conditional_module):
    balanced = conditional_module.labels_for(range(20), 0, None, "balanced")
    drawn = conditional_module.labels_for(range(20), 0, None, "random")
    assert balanced.tolist() == [*range(10), *range(10)]
    assert drawn.tolist() != balanced.tolist()
    assert drawn[5:].tolist() == conditional_module.labels_for(range(5, 20), 0, None, "random").tolist()


@pytest.mark.slow
def test_the_batch_size_changes_nothing(tmp_path, module, datamodule):
    values = [
        measure(monitor(tmp_path, batch_size=size), module, datamodule).scalars["frechet/patches"] for size in (7, 40)
    ]
    assert values[0] == pytest.approx(values[1], rel=1e-3)  # rounding to uint8 may flip a pixel


@pytest.mark.slow
def test_the_protocol_holds_what_a_reader_needs(tmp_path, module, datamodule):
    protocol = measure(monitor(tmp_path), module, datamodule, seed=7).protocol
    assert protocol["reference"]["set"] == "digits/train" and protocol["reference"]["num"] == len(datamodule.train)
    assert {key: protocol[key] for key in ("num_samples", "labels", "nfe", "seed", "weights")} == {
        "num_samples": 40,
        "labels": "none",
        "nfe": 2,
        "seed": 7,
        "weights": "ema",
    }
    assert protocol["sampler"]["solver"] == "euler" and protocol["features"] == {"encoder": "patches"}


@pytest.mark.slow
def test_the_dataset_is_encoded_once(tmp_path, module, datamodule):
    first, second = monitor(tmp_path), monitor(tmp_path)
    values = [measure(m, module, datamodule).scalars["frechet/patches"] for m in (first, second)]
    assert first.encoder.pictures_seen == len(datamodule.train) + 40
    assert second.encoder.pictures_seen == 40
    assert values[0] == values[1]


@pytest.mark.slow
def test_another_training_subset_is_another_reference(tmp_path, module, datamodule):
    whole, part = monitor(tmp_path), monitor(tmp_path, max_reference=100)
    found = [measure(m, module, datamodule) for m in (whole, part)]
    assert [m.protocol["reference"]["num"] for m in found] == [len(datamodule.train), 100]
    assert found[0].scalars != found[1].scalars


def test_one_diverged_sample_is_an_error_and_not_a_black_picture(tmp_path, module, datamodule):
    images = datamodule.train.images[:40].float() / 127.5 - 1
    images[3, 0, 0, 0] = math.nan
    module.sampler = Copies(images)
    with pytest.raises(ValueError, match="the samples have diverged"):
        measure(monitor(tmp_path), module, datamodule)


@pytest.mark.slow
def test_the_encoder_never_enters_the_modules_state(tmp_path, module, datamodule):
    names = list(module.state_dict())
    measure(monitor(tmp_path), module, datamodule)
    assert list(module.state_dict()) == names


@pytest.mark.slow
def test_inceptions_distance_alone_is_recorded_as_fid(tmp_path, module, datamodule):
    class Named(Patches):
        distance_name = "fid"

    found = measure(SampleMetrics(Named(), num_samples=8, cache=tmp_path), module, datamodule)
    assert list(found.scalars) == ["fid"]
    other = measure(monitor(tmp_path), module, datamodule)
    assert list(other.scalars) == ["frechet/patches"]


@pytest.mark.slow
def test_the_default_features_measure_digits(tmp_path, module, datamodule):
    small = replace_train(datamodule, 60)
    found = measure(
        SampleMetrics({"name": "efficientnet_lite", "input_size": 48}, num_samples=20, cache=tmp_path), module, small
    )
    assert found.scalars["frechet/efficientnet_lite"] > 0


def replace_train(datamodule, num):
    datamodule._loaded = (datamodule.train.subset(num), datamodule.test)
    return datamodule


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"num_samples": 1}, "at least 2 samples"),
        ({"reference": "val"}, "train, test or a .npz file of ADM, got 'val'"),
        ({"metrics": ["fid"]}, "metrics must be some of frechet, sfid"),
        ({"metrics": ["sfid"]}, "sfid needs the output spatial, which only encoder=inception offers"),
        ({"labels": "all"}, "balanced, random, got 'all'"),
        ({"precision": "16"}, "32-true, bf16-mixed, got '16'"),
        ({"every_n_steps": 0}, "at least 1, got 0"),
        ({"options": {"foo": 3}}, "options of metrics are split_size, k, .*; got foo"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_training(tmp_path, options, sentence):
    with pytest.raises(ValueError, match=sentence):
        monitor(tmp_path, **options)
