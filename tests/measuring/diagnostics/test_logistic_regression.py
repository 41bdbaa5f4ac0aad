"""The converged reading beside scikit-learn's, and what few updates of unscaled features miss and it does not."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from flowexp.measuring.diagnostics import fit_converged, fit_logistic, fit_probes, logistic_regression
from flowexp.measuring.diagnostics.logistic_regression import PENALTIES, TOLERANCE


@pytest.fixture(scope="module")
def digits():
    pixels, labels = load_digits(return_X_y=True)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    return torch.tensor(pixels, dtype=torch.float32)[order], torch.tensor(labels)[order]


@pytest.mark.parametrize("penalty", [1e-2, 1e-4])
def test_the_optimum_is_that_of_scikit_learn(digits, penalty):
    pixels, labels = (each[:1000] for each in digits)
    fit = fit_logistic(pixels, labels, 10, penalties=[penalty])
    standard = StandardScaler().fit_transform(pixels.double().numpy())
    theirs = LogisticRegression(C=1 / (1000 * penalty), tol=1e-6, max_iter=5000).fit(standard, labels.numpy())
    ours = torch.softmax(pixels @ fit.weight + fit.bias, dim=1).double().numpy()
    assert np.abs(ours - theirs.predict_proba(standard)).max() < 0.06
    assert fit.penalty == penalty and fit.gradient_left < 2 * TOLERANCE


def test_digits_are_read_off_their_pixels(digits):
    """As well as scikit-learn's documentation has it: about 95 %, where 15 epochs of 1e-3 read off some 80 %."""
    pixels, labels = digits
    data = (pixels[None, :1437] / 16, labels[:1437], pixels[None, 1437:] / 16, labels[1437:], 10)
    converged = fit_converged(*data)
    assert float(converged.accuracy[0]) > 0.94 and converged.fits[0].converged
    assert float(fit_probes(*data).accuracy[0]) < float(converged.accuracy[0]) - 0.05


def test_the_scale_of_features_does_not_matter(digits):
    pixels, labels = (each[:500] for each in digits)
    fit, scaled = (fit_logistic(pixels * scale + offset, labels, 10) for scale, offset in ((1, 0), (2**-6, 0.5)))
    assert scaled.penalty == fit.penalty
    ours, theirs = pixels @ fit.weight + fit.bias, (pixels * 2**-6 + 0.5) @ scaled.weight + scaled.bias
    assert float((ours.softmax(1) - theirs.softmax(1)).abs().max()) < 0.02


def test_a_feature_that_never_varies_counts_for_nothing(digits):
    pixels, labels = (each[:500] for each in digits)
    plain, padded = (fit_logistic(each, labels, 10) for each in (pixels, torch.nn.functional.pad(pixels, (0, 5))))
    torch.testing.assert_close(padded.weight[:64], plain.weight, rtol=1e-2, atol=1e-2)
    assert not padded.weight[64:].any()


def test_noise_chooses_a_strong_penalty_and_classes_a_weaker_one():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 4, (400,), generator=generator)
    noise = torch.randn(400, 60, generator=generator)
    told = noise[:, :4] + 3 * torch.nn.functional.one_hot(labels, 4)
    assert fit_logistic(noise, labels, 4).penalty == PENALTIES[0]
    assert fit_logistic(told, labels, 4).penalty < PENALTIES[0]


def test_features_that_are_not_finite_have_no_accuracy(digits):
    pixels, labels = (each[:200] for each in digits)
    broken = torch.stack([pixels, pixels])
    broken[1, 3, 5] = torch.inf
    result = fit_converged(broken, labels, broken, labels, 10)
    assert result.accuracy.isnan().tolist() == [False, True]
    assert [fit.converged for fit in result.fits] == [True, False]


def test_features_that_vary_together_take_few_evaluations(monkeypatch):
    """Conditioned as those of a network are, 10^4: 56 evaluations, where L-BFGS on the weights themselves takes 257."""
    generator = torch.Generator().manual_seed(0)
    turn = torch.linalg.qr(torch.randn(32, 32, generator=generator))[0]
    features = torch.randn(2000, 32, generator=generator) * torch.logspace(0, -2, 32) @ turn
    logits = 3 * features @ turn.T / torch.logspace(0, -2, 32) @ torch.randn(32, 5, generator=generator)
    labels = (logits - torch.rand(2000, 5, generator=generator).log().neg().log()).argmax(1)
    evaluations, loss = [], logistic_regression._Problem.loss
    monkeypatch.setattr(logistic_regression._Problem, "loss", lambda *args: evaluations.append(1) or loss(*args))
    fit = fit_logistic(features, labels, 5, penalties=[1e-4])
    assert fit.gradient_left < 2 * TOLERANCE and len(evaluations) < 120
