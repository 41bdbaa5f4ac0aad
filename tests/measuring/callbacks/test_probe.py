from __future__ import annotations

import pytest
import torch

from flowexp.measuring.callbacks import probe, probe_baselines
from flowexp.measuring.callbacks.probe import LEVELS, ProbeMonitor


def measure(monitor, module, datamodule, seed=0):
    with module.averaged():
        return monitor.measure(module, datamodule, seed)


def accuracies(found, reading):
    rows = [row for row in found.rows if (row["reading"], row["features"]) == (reading, "network")]
    return {(row["t"], row["tap"]): row["accuracy"] for row in rows}


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
    accuracy = accuracies(found, "converged")
    assert list(accuracy) == [(0.0, 2), (0.0, 4), (0.9, 2), (0.9, 4)]
    assert accuracy[0.0, 4] > 0.5 > accuracy[0.9, 4]
    best = {
        "peak": max(accuracy.values()),
        "t_peak": 0.0,
        "at_clean": max(accuracy.values()),
        "dip": 0.0,
        "dip_se": 0.0,
    }
    assert {key: found.scalars[f"probe/{key}"] for key in best} == best
    assert len(found.figure.axes) == 3
    assert [text.get_text() for text in found.figure.axes[0].get_legend().get_texts()] == [
        "block 2",
        "block 4",
        "pixels",
    ]


def test_the_default_tap_is_the_backbones(module, datamodule):
    found = measure(ProbeMonitor([0.1], epochs=1, max_train_images=64), module, datamodule)
    assert {row["tap"] for row in found.rows if row["features"] == "network"} == {module.backbone.default_tap}
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
        ({"extract_batch_size": 0}, "extract_batch_size must be at least 1, got 0"),
        ({"readings": []}, "some of converged, paper, knn, got none"),
        ({"readings": ["linear"]}, "some of converged, paper, knn, got linear"),
        ({"baselines": ["noise"]}, "some of pixels, encoder, got noise"),
        ({"memory_gb": 0.0}, r"memory_gb must be positive, got 0\.0"),
        ({"max_train_images": 0}, "max_train_images must be at least 1, got 0"),
        ({"max_test_images": 0}, "max_test_images must be at least 1, got 0"),
    ],
)
def test_settings_that_cannot_be_meant_are_refused_before_training(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        ProbeMonitor(**options)


def test_a_named_protocol_stands_beside_the_numbers_with_its_departures(module, datamodule):
    monitor = ProbeMonitor([0.1, 0.5], protocol="ddae", max_train_images=64)
    found = measure(monitor, module, datamodule)
    paper = found.protocol["readings"]["paper"]
    assert (paper["protocol"], paper["optimizer"], paper["updates"]) == ("ddae", "adam", 15)
    assert any("no augmentation" in departure for departure in paper["departures"])
    assert any(str(verdict).endswith("(nearest neighbours)") for verdict in found.verdicts)
    fitted = {row["reading"]: row["train_accuracy"] for row in found.rows}
    assert 0 <= fitted["paper"] <= 1 and fitted["knn"] is None
    assert found.protocol["readings"]["knn"]["k"] == 20 and found.maps == {"accuracy": "accuracy"}
    assert [*dict.fromkeys(row["reading"] for row in found.rows)] == ["converged", "paper", "knn"]


@pytest.mark.slow
def test_pixels_and_a_frozen_encoder_stand_beside_the_network_and_are_read_once(
    module, datamodule, tmp_path, monkeypatch
):
    options = {"levels": [0.1], "readings": ["converged"], "baselines": ["pixels", "encoder"], "cache": str(tmp_path)}
    found = measure(ProbeMonitor(**options, max_train_images=400), module, datamodule)
    known = {row["features"]: row["accuracy"] for row in found.rows if row["t"] is None}
    assert known["pixels"] > 0.85 and known["efficientnet_lite"] > 0.8
    monkeypatch.setattr(probe_baselines, "_read", lambda *_: pytest.fail("baselines were read again"))
    again = measure(ProbeMonitor(**options, max_train_images=400), module, datamodule)
    assert again.rows == found.rows
    with pytest.raises(pytest.fail.Exception):  # other images have other baselines
        measure(ProbeMonitor(**options, max_train_images=401), module, datamodule)


def test_fewer_test_images_are_scored_where_that_is_asked_by_the_network_and_by_the_baselines(module, datamodule):
    options = {"readings": ["converged"], "baselines": ["pixels"], "max_train_images": 64}
    found = measure(ProbeMonitor([0.1], **options, max_test_images=10), module, datamodule)
    assert found.protocol["num_test"] == 10
    assert all(round(10 * row["accuracy"], 9).is_integer() for row in found.rows) and len(found.rows) == 2
    most = measure(ProbeMonitor([0.1], **options, max_test_images=10**6), module, datamodule)
    assert most.protocol["num_test"] == len(datamodule.test) > 10


def test_large_images_are_averaged_down_to_what_a_classifier_can_be_fitted_to():
    small, large = torch.rand(2, 3, 32, 32), torch.rand(2, 3, 256, 256)
    assert probe_baselines._pixels(small).shape == (2, 3072)
    assert probe_baselines._pixels(large).shape[1] <= probe_baselines.MOST_PIXELS
    assert float(probe_baselines._pixels(large).mean()) == pytest.approx(float(large.mean()), abs=1e-2)


def test_a_setting_of_ones_own_wins_over_the_protocols_and_is_told_as_a_departure(module, datamodule):
    monitor = ProbeMonitor([0.1], protocol="ddae", epochs=2, lr=1e-2, max_train_images=64)
    assert (monitor.protocol.epochs, monitor.protocol.lr, monitor.protocol.optimizer) == (2, 1e-2, "adam")
    departures = measure(monitor, module, datamodule).protocol["readings"]["paper"]["departures"]
    assert departures[-2:] == ["epochs 2, not 15", "lr 0.01, not 0.001"]


@pytest.mark.slow
def test_each_number_has_the_card_of_what_decides_it(module, datamodule):
    def cards(seed=0, levels=(0.1, 0.5), **options):
        options = {"max_train_images": 64, "epochs": 1} | options
        found = measure(ProbeMonitor(levels, **options), module, datamodule, seed)
        assert {*found.protocol["cards"]} == {*found.scalars}
        return [found.protocol["cards"][key] for key in ("probe/peak", "probe_paper/peak", "knn/dip")]

    converged, paper, knn = cards()
    assert cards(seed=1) == [converged, paper, knn] and len({converged, paper, knn}) == 3
    same_probe, other_fit, same = cards(lr=1e-2)
    assert other_fit != paper and (same_probe, same) == (converged, knn)  # the setting is the paper's alone
    for changes in ({"max_train_images": 65}, {"taps": [2]}, {"levels": (0.1, 0.6)}):
        assert not {converged, paper, knn} & {*cards(**changes)}


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
    options = {"levels": [0.0, 0.1, 0.5], "taps": [2, 4], "epochs": 2}
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
    monitor = ProbeMonitor([0.1], readings=["paper"], baselines=[], epochs=1, max_train_images=6)
    seen = len(datamodule.train.subset(6).labels.unique())
    with pytest.warns(UserWarning, match=rf"{10 - seen} of 10 classes are among the test images and not among the 6 "):
        measure(monitor, module, datamodule)
    measure(ProbeMonitor([0.1], epochs=1, max_train_images=200), module, datamodule)


def test_fewer_images_than_neighbours_are_refused_before_features_are_read(module, datamodule, monkeypatch):
    monkeypatch.setattr(probe, "extract_features", lambda *_, **__: pytest.fail("features were read"))
    with pytest.raises(ValueError, match="needs at least 20 training images, got 19: raise max_train_images"):
        measure(ProbeMonitor([0.1], readings=["knn"], max_train_images=19), module, datamodule)


def test_data_without_classes_cannot_be_probed(module, datamodule):
    datamodule.num_classes = 0
    with pytest.raises(ValueError, match="digits has none: choose a dataset that has, by data="):
        measure(ProbeMonitor([0.1]), module, datamodule)
