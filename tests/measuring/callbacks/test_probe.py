from __future__ import annotations

import pytest
import torch

from flowexp.measuring.callbacks import probe
from flowexp.measuring.callbacks.probe import LEVELS, ProbeMonitor


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
    assert ProbeMonitor().protocol == ProbeMonitor(protocol="lcf", epochs=15, lr=1e-3).protocol
    assert ProbeMonitor().protocol.name == "lcf"
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
        ({"levels": [20]}, "levels must be a noise level in .* got 20: 20 of 1000 is 0.02"),
        ({"levels": ["low"]}, "levels must be a noise level in .* got 'low'"),
        ({"optimizer": "sgd"}, "adamw, adam, got 'sgd'"),
        ({"protocol": "dino"}, "ddae, lcf, got 'dino'"),
        ({"epochs": 0}, "at least 1 epoch, .* got 0, 128"),
        ({"batch_size": 0}, "batches of at least 1"),
        ({"lr": 0.0}, "a positive lr"),
        ({"weight_decay": -1.0}, "weight_decay of at least 0"),
        ({"extract_batch_size": 0}, "must be at least 1 and memory_gb positive, got 0, None"),
        ({"max_train_images": 0}, "must be at least 1 and memory_gb positive, got 256, 0"),
        ({"memory_gb": 0.0}, r"memory_gb positive, got 256, None and 0\.0"),
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
    linear, knn = map(str, found.verdicts)
    assert knn.endswith("(knn probe)") and linear.startswith("no verdict") and not linear.endswith("(knn probe)")
    assert found.protocol["updates"] == 15
    fitted = {row["probe"]: row["train_accuracy"] for row in found.rows}
    assert 0 <= fitted["linear"] <= 1 and fitted["knn"] is None
    assert found.protocol["knn"] == {"k": 20, "temperature": 0.07}
    assert {row["probe"] for row in found.rows} == {"linear", "knn"} and found.maps == ("accuracy",)


def test_a_setting_of_ones_own_wins_over_the_protocols_and_is_told_as_a_departure(module, datamodule):
    monitor = ProbeMonitor([0.1], protocol="ddae", epochs=2, lr=1e-2, max_train_images=64)
    assert (monitor.protocol.epochs, monitor.protocol.lr, monitor.protocol.optimizer) == (2, 1e-2, "adam")
    departures = measure(monitor, module, datamodule).protocol["departures"]
    assert departures[-2:] == ["epochs 2, not 15", "lr 0.01, not 0.001"]


@pytest.mark.slow
def test_each_number_has_the_card_of_what_decides_it(module, datamodule):
    def cards(seed=0, levels=(0.1, 0.5), **options):
        options = {"max_train_images": 64, "epochs": 1, "probes": ["linear", "knn"]} | options
        found = measure(ProbeMonitor(levels, **options), module, datamodule, seed)
        assert {*found.protocol["cards"]} == {*found.scalars}
        return found.protocol["cards"]["probe/peak"], found.protocol["cards"]["knn/dip"]

    linear, knn = cards()
    assert cards(seed=1) == (linear, knn) and linear != knn
    other_fit, same = cards(lr=1e-2)
    assert other_fit != linear and same == knn  # nothing is fitted there
    for changes in ({"max_train_images": 65}, {"taps": [2]}, {"levels": (0.1, 0.6)}):
        assert not {linear, knn} & {*cards(**changes)}


def test_adam_has_no_weight_decay():
    adam = ProbeMonitor(optimizer="adam").protocol
    assert adam.weight_decay == 0 and adam.departures[-2:] == (
        "optimizer adam, not adamw",
        "weight_decay 0.0, not 0.01",
    )
    with pytest.raises(ValueError, match="adam has no weight decay"):
        ProbeMonitor(protocol="ddae", weight_decay=0.01)


@pytest.mark.slow
def test_a_grid_larger_than_the_memory_is_read_in_parts_with_the_same_numbers(module, datamodule, monkeypatch):
    grids, extract = [], probe.extract_features

    def noting(backbone, interpolant, images, levels, taps, *rest, **options):
        found = extract(backbone, interpolant, images, levels, taps, *rest, **options)
        grids.append((len(levels), found.numel() * 4 / 1e9))
        return found

    monkeypatch.setattr(probe, "extract_features", noting)
    options = {"levels": [0.0, 0.1, 0.5], "taps": [2, 4], "epochs": 2, "probes": ["linear", "knn"]}
    options["max_train_images"] = 300
    whole = measure(ProbeMonitor(**options), module, datamodule)
    needed = grids[0][1] + grids[1][1]
    for share, sizes in ((0.7, [2, 2, 1, 1]), (1e-6, [1] * 6)):
        grids.clear()
        parts = measure(ProbeMonitor(**options, memory_gb=share * needed), module, datamodule)
        assert [levels for levels, _ in grids] == sizes
        assert parts.scalars == pytest.approx(whole.scalars, abs=0.01)  # products of other sizes are rounded otherwise
        assert [row["t"] for row in parts.rows] == [row["t"] for row in whole.rows]
        for row, other in zip(parts.rows, whole.rows, strict=True):
            assert row["accuracy"] == pytest.approx(other["accuracy"], abs=0.01) and row["tap"] == other["tap"]


@pytest.mark.filterwarnings("error")
def test_classes_that_no_training_image_shows_are_warned_of(module, datamodule):
    monitor = ProbeMonitor([0.1], epochs=1, max_train_images=6)
    seen = len(datamodule.train.subset(6).labels.unique())
    with pytest.warns(UserWarning, match=rf"{10 - seen} of 10 classes are among the test images and not among the 6 "):
        measure(monitor, module, datamodule)
    measure(ProbeMonitor([0.1], epochs=1, max_train_images=200), module, datamodule)


def test_fewer_images_than_neighbours_are_refused_before_features_are_read(module, datamodule, monkeypatch):
    monkeypatch.setattr(probe, "extract_features", lambda *_, **__: pytest.fail("features were read"))
    with pytest.raises(ValueError, match="needs at least 20 training images, got 19: raise max_train_images"):
        measure(ProbeMonitor([0.1], probes=["knn"], max_train_images=19), module, datamodule)


def test_data_without_classes_cannot_be_probed(module, datamodule):
    datamodule.num_classes = 0
    with pytest.raises(ValueError, match="digits has none: choose a dataset that has, by data="):
        measure(ProbeMonitor([0.1]), module, datamodule)
