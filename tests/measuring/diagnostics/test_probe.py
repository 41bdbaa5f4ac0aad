from __future__ import annotations

import math

import pytest
import torch

from flowexp.backbones import create_backbone
from flowexp.data import Digits, to_float
from flowexp.flow.interpolants import GVP, Linear
from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.diagnostics import (
    PROTOCOLS,
    ProbeCurve,
    ProbeResult,
    create_protocol,
    extract_features,
    fit_converged,
    fit_probes,
    knn_correct,
    probe_curves,
)
from flowexp.measuring.diagnostics.probe import LinearHeads

LEVELS = [0.0, 0.1, 0.5]


@pytest.fixture(scope="module")
def digits():
    datamodule = Digits()
    datamodule.setup()
    return datamodule


@pytest.fixture(scope="module")
def backbone():
    torch.manual_seed(1)
    network = create_backbone("dit_nano2", resolution=8, channels=1, num_classes=10).eval()
    for parameter in network.parameters():  # zero-initialised layers would make all features of a kind alike
        torch.nn.init.normal_(parameter, std=0.05)
    return network


def test_features_are_token_means_of_noised_images(backbone, digits):
    images = digits.train.images[:20]
    found = extract_features(backbone, GVP(), images, [0.0], [2, 4], seed=0, prepare=to_float)
    with torch.no_grad():
        tokens = backbone.features(to_float(images), torch.zeros(20), torch.full((20,), 10), [2, 4])
    torch.testing.assert_close(found, torch.stack([tokens[2].mean(1), tokens[4].mean(1)]))


def test_features_are_ordered_by_level_then_tap_and_do_not_depend_on_the_batch_size(backbone, digits):
    images = digits.train.images[:30]
    together = extract_features(backbone, Linear(), images, LEVELS, [2, 4], 0, batch_size=30, prepare=to_float)
    apart = [extract_features(backbone, Linear(), images, [level], [tap], 0, 7, prepare=to_float)
             for level in LEVELS for tap in (2, 4)]  # fmt: skip
    torch.testing.assert_close(together, torch.cat(apart), rtol=1e-4, atol=1e-5)


def test_one_pass_per_level_stops_at_the_deepest_tap(backbone, digits, monkeypatch):
    ran = []
    for number, block in enumerate(backbone.blocks, start=1):
        handle = block.register_forward_hook(lambda *_, number=number: ran.append(number))
        monkeypatch.setattr(block, "_test_hook", handle, raising=False)
    extract_features(backbone, Linear(), digits.train.images[:8], LEVELS, [1, 3], 0, prepare=to_float)
    for block in backbone.blocks:
        block._test_hook.remove()
    assert ran == [1, 2, 3] * len(LEVELS)


def toy_problem(heads=3, num=200, dim=6, classes=4):
    features, labels = torch.randn(heads, num, dim), torch.randint(0, classes, (num,))
    features[1, torch.arange(num), labels] += 2  # one set of features knows the classes
    return features, labels


def fit_alone(features, labels, test_features, optimizer, epochs=3, batch_size=32, lr=1e-2):
    """The probe as a textbook writes it: one nn.Linear and one optimizer."""
    first = LinearHeads(1, features.shape[1], 4, seed=5)
    head = torch.nn.Linear(features.shape[1], 4)
    head.weight.data, head.bias.data = first.weight[0].T.clone(), first.bias[0, 0].clone()
    descent = optimizer(head.parameters())
    for epoch in range(epochs):
        for group in descent.param_groups:
            group["lr"] = lr * (1 + math.cos(math.pi * epoch / epochs)) / 2
        order = torch.randperm(len(labels), generator=keyed_generator(5, 1, epoch))
        for rows in order.split(batch_size):
            descent.zero_grad()
            torch.nn.functional.cross_entropy(head(features[rows]), labels[rows]).backward()
            descent.step()
    return head


@pytest.mark.parametrize(
    ("name", "optimizer"),
    [
        ("adamw", lambda parameters: torch.optim.AdamW(parameters, weight_decay=0.01)),
        ("adam", lambda parameters: torch.optim.Adam(parameters)),
    ],
)
def test_fitting_together_is_fitting_each_alone(name, optimizer, monkeypatch):
    features, labels = toy_problem()
    fitted = []
    monkeypatch.setattr("flowexp.measuring.diagnostics.probe._result", lambda heads, *_: fitted.append(heads))
    with torch.no_grad():  # a measurement runs without gradient, and the probe needs its own
        fit_probes(features, labels, features, labels, 4, epochs=3, batch_size=32, lr=1e-2, optimizer=name, seed=5)
    for index in range(3):
        alone = fit_alone(features[index], labels, features[index], optimizer)
        torch.testing.assert_close(fitted[0].weight[index].T, alone.weight, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(fitted[0].bias[index, 0], alone.bias, rtol=1e-4, atol=1e-5)


def test_classes_are_found_where_they_are_and_not_where_they_are_not():
    features, labels = toy_problem(num=1000)
    result = fit_probes(features[:, :700], labels[:700], features[:, 700:], labels[700:], 4, epochs=15, lr=1e-2)
    assert result.accuracy[1] > 0.65
    assert (result.accuracy[[0, 2]] < 0.4).all()


def test_a_head_does_not_know_of_the_others():
    features, labels = toy_problem()
    together = fit_probes(features, labels, features, labels, 4, epochs=2)
    alone = fit_probes(features[1:2], labels, features[1:2], labels, 4, epochs=2)
    one = 1 / len(labels)  # a row on the border, which products of other sizes may put on its other side
    assert float(together.accuracy[1]) == pytest.approx(float(alone.accuracy[0]), abs=1.01 * one)
    assert float(together.train_accuracy[1]) == pytest.approx(float(alone.train_accuracy[0]), abs=1.01 * one)


def test_features_that_are_not_finite_have_no_accuracy():
    features, labels = toy_problem()
    features[2, 17, 0] = math.nan
    accuracy = fit_probes(features, labels, features, labels, 4, epochs=1).accuracy
    assert accuracy.isnan().tolist() == [False, False, True]


def test_the_probe_leaves_the_network_as_it_was(backbone, digits):
    before = {name: value.clone() for name, value in backbone.state_dict().items()}
    features = extract_features(backbone, Linear(), digits.train.images[:64], [0.1], [4], 0, prepare=to_float)
    fit_probes(features, digits.train.labels[:64], features, digits.train.labels[:64], 10, epochs=1)
    after = backbone.state_dict()
    assert after.keys() == before.keys() and all(torch.equal(after[name], before[name]) for name in before)
    assert all(parameter.grad is None for parameter in backbone.parameters())


def test_an_unknown_optimizer_is_refused():
    features, labels = toy_problem()
    with pytest.raises(ValueError, match="adamw, adam, got 'sgd'"):
        fit_probes(features, labels, features, labels, 4, optimizer="sgd")


def test_dip_is_what_is_lost_from_the_peak_to_clean_data():
    curve = ProbeCurve({(0.0, 4): 0.5, (0.1, 4): 0.8, (0.5, 4): 0.3, (0.0, 2): 0.7, (0.1, 2): 0.6, (0.5, 2): 0.2})
    assert (curve.peak, curve.t_peak, curve.tap_peak, curve.at_clean) == (0.8, 0.1, 4, 0.5)
    assert curve.dip == pytest.approx(0.3)
    assert curve.rows()[0] == {"t": 0.0, "tap": 4, "accuracy": 0.5}


def test_accuracies_are_exact_shares():
    features, labels = toy_problem()
    result = fit_probes(features, labels, features, labels, 4, epochs=2)
    for share in (*result.accuracy.tolist(), *result.train_accuracy.tolist()):
        assert share == round(share * 200) / 200


def test_protocols_are_those_of_their_papers():
    lcf, ddae = create_protocol("lcf"), create_protocol("ddae")
    common = {"epochs": 15, "batch_size": 128, "lr": 1e-3}
    assert lcf.fit() == {**common, "optimizer": "adamw", "weight_decay": 0.01}
    assert ddae.fit() == {**common, "optimizer": "adam", "weight_decay": 0.0}
    assert any("augmentation" in departure for departure in ddae.departures)
    assert all("one draw of noise per image and level" in protocol.departures[0] for protocol in PROTOCOLS.values())
    with pytest.raises(ValueError, match="ddae, lcf, got 'dino'"):
        create_protocol("dino")


def test_the_updates_of_a_fit_are_counted():
    assert create_protocol("lcf").updates(50_000) == 15 * 391


@pytest.mark.slow
def test_all_readings_are_of_the_same_features():
    features, labels = toy_problem(heads=4)
    data = (features[:, :150], labels[:150], features[:, 150:], labels[150:], 4)
    curves = probe_curves(*data, levels=[0.0, 0.1], taps=[2, 4], protocol="ddae", seed=3)
    assert list(curves) == ["converged", "paper", "knn"]
    places = [(0.0, 2), (0.0, 4), (0.1, 2), (0.1, 4)]
    results = {
        "converged": fit_converged(*data, seed=3),
        "paper": fit_probes(*data, seed=3, **create_protocol("ddae").fit()),
        "knn": ProbeResult(*knn_correct(*data)),
    }
    for reading, result in results.items():
        assert curves[reading].accuracy == dict(zip(places, result.accuracy.tolist(), strict=True))
        assert [*curves[reading].correct] == places
    assert curves["knn"].num_test == 50 and curves["knn"].along(4)[0][0] == 0.0
    with pytest.raises(ValueError, match="converged, paper, knn, got svm"):
        probe_curves(*data, [0.0, 0.1], [2, 4], readings=["svm"])


def test_the_error_of_a_dip_is_that_of_paired_differences():
    """Of 400 images both cells fail 60; the cleanest level fails 20 more, the peak 10 others."""
    peak, clean = torch.ones(400, dtype=torch.bool), torch.ones(400, dtype=torch.bool)
    clean[:80] = False
    peak[20:90] = False
    accuracy = {(0.0, 4): 320 / 400, (0.1, 4): 330 / 400}
    curve = ProbeCurve(accuracy, 400, correct={(0.0, 4): clean, (0.1, 4): peak})
    difference = torch.tensor([1.0] * 20 + [-1.0] * 10 + [0.0] * 370, dtype=torch.float64)
    assert curve.dip_se == pytest.approx(float(difference.std(correction=0)) / 20)
    assert curve.dip_se < ProbeCurve(accuracy, 400).dip_se / 1.5  # as if of different images
