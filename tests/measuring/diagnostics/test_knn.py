from __future__ import annotations

import math

import pytest
import torch

from flowexp.measuring.diagnostics import knn_correct


@pytest.fixture
def problem():
    labels = torch.randint(0, 4, (150,))
    features = torch.randn(2, 150, 6)
    features[1, torch.arange(150), labels] += 2  # one set of features knows the classes
    return features[:, :100], labels[:100], features[:, 100:], labels[100:]


def knn_accuracy(*data, **options):
    correct, finite = knn_correct(*data, **options)
    return [float(row.double().mean()) if sound else math.nan for row, sound in zip(correct, finite, strict=True)]


def by_loops(train, labels, test, truth, k, temperature):
    correct, train, test = 0, train - train.mean(0), test - train.mean(0)
    for query, answer in zip(test, truth, strict=True):
        near = sorted(
            (
                (float(torch.cosine_similarity(query, row, dim=0)), int(label))
                for row, label in zip(train, labels, strict=True)
            ),
            reverse=True,
        )[:k]
        votes = [sum(math.exp(s / temperature) for s, label in near if label == c) for c in range(4)]
        correct += votes.index(max(votes)) == int(answer)
    return correct / len(truth)


@pytest.mark.parametrize(("k", "temperature"), [(1, 0.07), (7, 0.07), (20, 1.0)])
def test_votes_are_those_of_a_loop_over_neighbours(problem, k, temperature):
    train, labels, test, truth = problem
    found = knn_accuracy(train, labels, test, truth, 4, k=k, temperature=temperature, batch_size=16)
    assert found == [by_loops(train[h], labels, test[h], truth, k, temperature) for h in range(2)]
    assert found[1] > found[0]


def test_scale_and_offset_of_features_do_not_matter_and_shares_are_exact(problem):
    train, labels, test, truth = problem
    found = knn_accuracy(train, labels, test, truth, 4)
    assert knn_accuracy(train * 8 + 4, labels, test * 8 + 4, truth, 4) == found
    assert all(share == round(share * 50) / 50 for share in found)


def test_features_that_are_not_finite_have_no_accuracy(problem):
    train, labels, test, truth = problem
    train = train.clone()
    train[0, 3, 1] = math.inf
    assert [math.isnan(share) for share in knn_accuracy(train, labels, test, truth, 4)] == [True, False]


def test_more_neighbours_than_images_are_refused(problem):
    train, labels, test, truth = problem
    with pytest.raises(ValueError, match=r"k must lie in 1\.\.100, .* got 101"):
        knn_accuracy(train, labels, test, truth, 4, k=101)
