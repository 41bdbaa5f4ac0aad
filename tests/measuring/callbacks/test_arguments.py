"""What a monitor measures: the EMA weights, with the labels, the noise, the seed and the options that it was given."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flowexp.flow.randomness import keyed_generator
from flowexp.integrations.encoders.base import FeatureNet
from flowexp.measuring.callbacks import probe, ssc_calibration
from flowexp.measuring.callbacks.diagnostics_along_t import (
    ConditionNumber,
    CrossTerms,
    EncoderJacobian,
    GradientShare,
    IntegrationLag,
    VelocityNorms,
)
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.measuring.callbacks.probe import ProbeMonitor
from flowexp.measuring.callbacks.sample_metrics import SampleMetrics
from flowexp.measuring.callbacks.samples import SampleGridMonitor
from flowexp.measuring.callbacks.ssc_calibration import SSCCalibration
from flowexp.measuring.diagnostics import cross_terms, encoder_jacobian, semantic_subspace, tapped_encoder
from flowexp.measuring.metrics import distance_of, kernel_distance, moments_of
from flowexp.records.recording import Measurement

sys.path.append(str(Path(__file__).parent))
from processes import random_module


class Quarters(FeatureNet):
    """Means of the four quarters of a picture."""

    name = "quarters"
    dim = 4

    def features(self, images):
        return torch.nn.functional.adaptive_avg_pool2d(images[:, :1].float() / 255, 2).flatten(1)

    def protocol(self):
        return {"encoder": self.name}


def measure(monitor, module, datamodule, seed=0):
    with module.averaged():
        return monitor.measure(module, datamodule, seed)


# --- the EMA ----------------------------------------------------------------------------------------------------------


def trained_weight(module):
    return next(parameter for parameter in module.backbone.parameters() if parameter.requires_grad)


class Weight(Monitor):
    """Measures a weight, and in which state the network is."""

    def measure(self, module, datamodule, seed):
        weight = trained_weight(module)
        found = {"weight": float(weight.flatten()[0]), "seed": float(seed)}
        states = {"training": module.backbone.training, "graph": torch.is_grad_enabled()}
        return Measurement("weight", found | {key: float(value) for key, value in states.items()})


def test_a_monitor_measures_the_average_and_leaves_the_weights_as_trained(module, datamodule):
    module.seed = 5
    module.train()
    module._create_averages()
    weight = trained_weight(module)
    average = float(weight.detach().flatten()[0])
    with torch.no_grad():
        weight.add_(1)
    found = Weight().run(module, datamodule, None, step=3).scalars
    assert found == {"weight": average, "seed": 5, "training": 0, "graph": 0}
    assert float(weight.detach().flatten()[0]) == pytest.approx(average + 1) and module.backbone.training


# --- labels -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def seen(conditional_module, monkeypatch):
    """The labels of all images that reach the network, in order, None for a call without."""
    labels = []

    def noting(method):
        def called(x, t, label=None, *rest, **options):
            labels.append(None if label is None else label.tolist())
            return method(x, t, label, *rest, **options)

        return called

    for name in ("encode", "features"):
        method = getattr(conditional_module.backbone, name)
        monkeypatch.setattr(conditional_module.backbone, name, noting(method))
    return labels


LEVELS = [0.1, 0.6]
BY_TEST_LABELS = {
    "velocity norms": VelocityNorms(LEVELS, num_images=16),
    "condition number": ConditionNumber(LEVELS, num_images=16),
    "gradient share": GradientShare(LEVELS, num_images=16),
    "noise levels": NoiseLevelMonitor(num_bins=2, num_images=16),
}


@pytest.mark.parametrize("name", BY_TEST_LABELS)
def test_images_reach_a_class_conditional_network_with_their_own_labels(name, conditional_module, datamodule, seen):
    measure(BY_TEST_LABELS[name], conditional_module, datamodule)
    assert seen and all(labels == datamodule.test.subset(16).labels.tolist() for labels in seen)


@pytest.mark.parametrize("name", ["probe", "jacobian"])
def test_features_are_read_without_a_label(name, conditional_module, datamodule, seen):
    monitor = ProbeMonitor([0.1], epochs=1, max_train_images=40) if name == "probe" else None
    measure(monitor or EncoderJacobian([0.1], 4, num_probes=1), conditional_module, datamodule)
    assert seen and all(labels is None for labels in seen)


def test_a_lag_follows_samples_of_the_classes_in_turn(conditional_module, datamodule, seen):
    monitor = IntegrationLag(num_samples=20, num_images=60, num_levels=2, max_dim=4)
    measure(monitor, conditional_module, datamodule)
    assert seen and all(labels == [i % 10 for i in range(20)] for labels in seen)


def test_a_calibration_measures_its_deficit_with_labels(conditional_module, datamodule, seen, monkeypatch):
    passed = {}
    monkeypatch.setattr(ssc_calibration, "velocity_norms", lambda *_, **given: passed.update(given) or stop())
    with pytest.raises(Stop):
        measure(SSCCalibration(Quarters(), num_samples=16, num_images=40), conditional_module, datamodule)
    assert torch.equal(passed["labels"], datamodule.test.subset(40).labels)


class Stop(Exception):
    """Enough was seen."""


def stop():
    raise Stop


@pytest.mark.parametrize("labels", ["balanced", "random"])
def test_samples_are_of_the_classes_that_labels_asks_for(labels, conditional_module, datamodule, seen):
    monitor = SampleMetrics(Quarters(), num_samples=40, batch_size=16, labels=labels, cache=None)
    found = measure(monitor, conditional_module, datamodule, seed=5)
    asked = [label for part in seen[::2] for label in part]  # each batch in two steps
    drawn = conditional_module.labels_for(range(40), 5, labels=labels).tolist()
    assert asked == drawn and (drawn == [i % 10 for i in range(40)]) == (labels == "balanced")
    pictures = datamodule.to_pictures(conditional_module.sample(range(40), 5, labels=labels).images)
    own, reference = (Quarters()(part).double() for part in (pictures, datamodule.train.images))
    assert found.scalars["frechet/quarters"] == pytest.approx(distance_of(moments_of(reference), moments_of(own)))


# --- noise, splits and seeds ------------------------------------------------------------------------------------------


def test_test_images_have_noise_of_their_own(module, datamodule, monkeypatch):
    """Of the same pictures on both sides, no two features are equal; with shared noise all would be."""
    captured = []
    curves = probe.probe_curves
    monkeypatch.setattr(probe, "probe_curves", lambda *data: captured.append(data) or curves(*data))
    monkeypatch.setattr(type(datamodule), "test", property(lambda self: self.train.subset(40)))
    for seed in (0, 1):
        measure(ProbeMonitor([0.5], epochs=1, max_train_images=40), module, datamodule, seed)  # the same pictures
    (train, _, test, *_), (other_train, _, other_test, *_) = captured
    sets = [train, test, other_train, other_test]
    for place, one in enumerate(sets):
        assert all((one - other).abs().flatten(0, 1).amax(1).min() > 1e-4 for other in sets[place + 1 :])


SEEDED = {
    "velocity norms": VelocityNorms([0.5], num_images=16),
    "condition number": ConditionNumber([0.5], num_images=8),
    "gradient share": GradientShare([0.5], num_images=8),
    "jacobian": EncoderJacobian([0.5], num_images=4, num_probes=1),
    "cross terms": CrossTerms(num_images=16),
    "noise levels": NoiseLevelMonitor(num_bins=2, num_images=16),
    "integration lag": IntegrationLag(num_samples=20, num_images=60, num_levels=1, max_dim=4),
    "sample metrics": SampleMetrics(Quarters(), num_samples=20, cache=None),
}


@pytest.mark.parametrize("name", SEEDED)
def test_a_monitor_draws_by_its_seed(name, module, datamodule):
    def scalars(seed):
        found = measure(SEEDED[name], module, datamodule, seed)
        return [row for row in found.rows] or found.scalars

    first, again, other = scalars(0), scalars(0), scalars(1)
    assert first == again and first != other


def test_a_grid_is_of_the_samples_of_its_seed(module, datamodule):
    found = measure(SampleGridMonitor(num_samples=4), module, datamodule, seed=7)
    assert torch.equal(found.pictures, datamodule.to_pictures(module.sample(range(4), 7).images))


@pytest.mark.parametrize("split", ["train", "test"])
def test_samples_are_compared_with_the_split_that_is_named(split, module, datamodule):
    monitor = SampleMetrics(Quarters(), num_samples=20, reference=split, max_reference=50, cache=None)
    found = measure(monitor, module, datamodule)
    images = getattr(datamodule, split).subset(50).images
    own = Quarters()(datamodule.to_pictures(module.sample(range(20), 0).images)).double()
    expected = distance_of(moments_of(Quarters()(images).double()), moments_of(own))
    assert found.scalars["frechet/quarters"] == pytest.approx(expected)


# --- options ----------------------------------------------------------------------------------------------------------


def test_a_jacobian_is_of_the_tap_that_is_named(module, datamodule):
    gains = [
        measure(EncoderJacobian([0.3], 4, tap=tap, num_probes=1), module, datamodule).rows[0]["g_noise"]
        for tap in (1, 3, None, module.backbone.default_tap)
    ]
    assert gains[0] != gains[1] and gains[2] == gains[3]


def test_a_jacobian_is_of_the_mean_token_or_of_all_tokens(module, datamodule):
    pooled, whole = (
        measure(EncoderJacobian([0.3], 4, num_probes=1, pooling=pooling), module, datamodule)
        for pooling in ("mean", "flatten")
    )
    assert whole.rows[0]["frobenius"] > pooled.rows[0]["frobenius"]  # a mean is shorter than what it is of
    assert (pooled.protocol["pooling"], whole.protocol["pooling"]) == ("mean", "flatten")
    with pytest.raises(ValueError, match=r"callbacks.jacobian.pooling"):
        EncoderJacobian([0.3], pooling="max")


def test_a_probe_is_of_the_taps_and_the_subset_that_are_named(module, datamodule, monkeypatch):
    captured = []
    curves = probe.probe_curves
    monkeypatch.setattr(probe, "probe_curves", lambda *data: captured.append(data) or curves(*data))
    monitor = ProbeMonitor([0.1], taps=[1, 3], epochs=3, batch_size=20, lr=0.01, max_train_images=50)
    found = measure(monitor, module, datamodule)
    features, labels, _, answers, *_ = captured[0]
    assert features.shape[:2] == (2, 50) and torch.equal(labels, datamodule.train.subset(50).labels)
    assert torch.equal(answers, datamodule.test.labels)
    expected = curves(*captured[0])["paper"].accuracy
    rows = [row for row in found.rows if (row["reading"], row["features"]) == ("paper", "network")]
    assert {(row["t"], row["tap"]): row["accuracy"] for row in rows} == expected
    protocol = captured[0][7]
    assert (protocol.epochs, protocol.batch_size, protocol.lr) == (3, 20, 0.01)


@pytest.mark.parametrize("batch_size", [3, 64])
def test_the_batch_size_changes_no_number(batch_size, module, datamodule):
    rows = measure(VelocityNorms([0.3], num_images=16, batch_size=batch_size), module, datamodule).rows
    whole = measure(VelocityNorms([0.3], num_images=16), module, datamodule).rows
    assert rows[0] == pytest.approx(whole[0], rel=1e-4)


def test_a_lag_is_that_of_the_modules_own_sampler(module, datamodule):
    monitor = IntegrationLag(num_samples=20, num_images=60, num_levels=3, max_dim=4)
    plain = measure(monitor, module, datamodule).rows
    module.sampler = replace(module.sampler, s0=1.3, s1=1.3, profile="constant")
    assert measure(monitor, module, datamodule).rows != plain


def test_a_jacobian_is_along_the_class_means_of_the_training_images_with_the_probes_that_are_named(module, datamodule):
    found = measure(EncoderJacobian([0.3], 4, num_probes=2), module, datamodule)
    train = datamodule.train
    basis = semantic_subspace(train.images, train.labels, prepare=datamodule.to_data)
    images = datamodule.test.subset(4).images
    encode, path = tapped_encoder(module.backbone), module.interpolant
    expected = encoder_jacobian(encode, path, images, [0.3], basis, 0, 2, prepare=datamodule.to_data)
    assert found.rows[0] == pytest.approx(expected.rows()[0], rel=1e-4)


def test_cross_terms_are_of_the_test_images(module, datamodule):
    found = measure(CrossTerms(num_images=16), module, datamodule)
    expected = cross_terms(datamodule.test.subset(16).images, 0, prepare=datamodule.to_data)
    assert found.rows == expected.rows()


def test_the_subsets_of_a_score_are_drawn_by_the_seed_of_the_measurement(module, datamodule):
    options = {"kid_subsets": 3, "kid_subset_size": 5}
    monitor = SampleMetrics(Quarters(), metrics="kid", num_samples=20, max_reference=30, cache=None, options=options)
    found = measure(monitor, module, datamodule, seed=6)
    own = Quarters()(datamodule.to_pictures(module.sample(range(20), 6).images))
    reference = Quarters()(datamodule.train.subset(30).images)
    expected, _ = kernel_distance(own, reference, keyed_generator(6, 4), 3, 5)
    assert found.scalars["mmd/quarters"] == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("name", ["probe", "sample_metrics", "samples"])
def test_the_network_works_in_the_precision_that_is_named(name, module, datamodule, monkeypatch):
    makers = {
        "probe": lambda: ProbeMonitor([0.1], epochs=1, max_train_images=40, precision="bf16-mixed"),
        "sample_metrics": lambda: SampleMetrics(Quarters(), num_samples=4, cache=None, precision="bf16-mixed"),
        "samples": lambda: SampleGridMonitor(num_samples=2, precision="bf16-mixed"),
    }
    seen = []
    module.backbone.register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    module.backbone.blocks[0].register_forward_hook(lambda *_: seen.append(torch.is_autocast_enabled("cpu")))
    measure(makers[name](), module, datamodule)
    assert seen and all(seen)


def test_a_lag_is_that_of_the_guided_sampler(module, datamodule):
    monitor = IntegrationLag(num_samples=20, num_images=60, num_levels=3, max_dim=4)
    module.sampler = replace(module.sampler, autoguidance_scale=2.0)
    rows = []
    for bias in (0.0, 0.5):
        weaker = random_module()
        torch.nn.init.constant_(weaker.backbone.final_layer.linear.bias, bias)
        module.guide = weaker.velocity_network
        rows.append(measure(monitor, module, datamodule).rows)
    assert rows[0] != rows[1]


@pytest.mark.parametrize("monitor", [VelocityNorms, ConditionNumber, GradientShare, EncoderJacobian])
def test_so_few_images_have_no_verdict(monitor, module, datamodule):
    verdicts = measure(monitor([0.05, 0.5], num_images=4), module, datamodule).verdicts
    assert list(map(str, verdicts)) == ["no verdict: 4 images are too few, 16 are needed; raise num_images"]
