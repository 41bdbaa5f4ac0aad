from __future__ import annotations

import pytest
import torch

from flowexp.callbacks.probe import LEVELS, ProbeMonitor


def measure(monitor, module, datamodule, seed=0):
    with module.averaged():
        return monitor.measure(module, datamodule, seed)


def test_defaults_are_those_of_lcf_table_3():
    assert ProbeMonitor().protocol.fit() == {
        "epochs": 15,
        "batch_size": 128,
        "lr": 1e-3,
        "weight_decay": 0.01,
        "optimizer": "adamw",
    }
    assert ProbeMonitor(optimizer="adam").protocol.weight_decay == 0  # and says so in the protocol
    assert ProbeMonitor().levels == list(LEVELS) and min(LEVELS) == 0


@pytest.mark.slow
def test_digits_are_read_off_a_random_network_better_when_they_are_clean(module, datamodule):
    found = measure(ProbeMonitor([0.0, 0.9], taps=[4, 2], lr=1e-2), module, datamodule)
    accuracy = {(row["t"], row["tap"]): row["accuracy"] for row in found.rows}
    assert list(accuracy) == [(0.0, 2), (0.0, 4), (0.9, 2), (0.9, 4)]
    assert accuracy[0.0, 4] > 0.5 > accuracy[0.9, 4]
    assert found.scalars == {
        "probe/peak": max(accuracy.values()),
        "probe/t_peak": 0.0,
        "probe/at_clean": max(accuracy.values()),
        "probe/dip": 0.0,
    }
    assert [text.get_text() for text in found.figure.axes[0].get_legend().get_texts()] == ["2", "4"]


def test_levels_may_be_counted_of_1000():
    assert ProbeMonitor([20, 0.02, 100, 0]).levels == [0.0, 0.02, 0.1]


def test_the_default_tap_is_the_backbones(module, datamodule):
    found = measure(ProbeMonitor([0.1], epochs=1, max_train_images=64), module, datamodule)
    assert [row["tap"] for row in found.rows] == [module.backbone.default_tap]
    assert found.protocol["num_train"] == 64 and found.protocol["num_test"] == len(datamodule.test)


@pytest.mark.slow
def test_the_probe_never_enters_the_modules_state(module, datamodule):
    before = {name: value.clone() for name, value in module.state_dict().items()}
    measure(ProbeMonitor([0.1], epochs=1, max_train_images=64), module, datamodule)
    after = module.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)


@pytest.mark.slow
def test_bf16_features_give_nearly_the_same_curve(module, datamodule):
    full, half = (
        measure(ProbeMonitor([0.0], lr=1e-2, precision=precision), module, datamodule).scalars["probe/peak"]
        for precision in ("32-true", "bf16-mixed")
    )
    assert half == pytest.approx(full, abs=0.05)


@pytest.mark.slow
def test_a_network_that_diverged_is_an_error(module, datamodule):
    next(module.backbone.parameters()).data.fill_(torch.nan)
    with pytest.raises(ValueError, match="training has diverged"):
        measure(ProbeMonitor([0.1], epochs=1, max_train_images=64), module, datamodule)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"levels": []}, "at least one noise level"),
        ({"levels": [1001]}, "noise level must lie in"),
        ({"optimizer": "sgd"}, "adamw, adam, got 'sgd'"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_training(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ProbeMonitor(**options)


def test_a_named_protocol_stands_beside_the_numbers_with_its_departures(module, datamodule):
    monitor = ProbeMonitor([0.1, 0.5], protocol="ddae", probes=["linear", "knn"], max_train_images=64)
    found = measure(monitor, module, datamodule)
    assert (found.protocol["protocol"], found.protocol["optimizer"]) == ("ddae", "adam")
    assert any("no augmentation" in departure for departure in found.protocol["departures"])
    assert [sentence.endswith("(knn probe)") for sentence in found.verdicts] == [False, True]
    assert {row["probe"] for row in found.rows} == {"linear", "knn"} and found.maps == ("accuracy",)


def test_data_without_classes_cannot_be_probed(module, datamodule):
    datamodule.num_classes = 0
    with pytest.raises(ValueError, match="digits has none: choose a dataset that has, by data="):
        measure(ProbeMonitor([0.1]), module, datamodule)
