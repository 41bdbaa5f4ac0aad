"""What samples are conditioned on depends on their numbers alone, and what a network cannot take is refused."""

from __future__ import annotations

import pytest
import torch

from flowexp.training.sample_labels import classes_for, text_for

CPU = torch.device("cpu")


def test_classes_come_in_turns_or_as_given():
    assert classes_for(range(2, 8), 3, seed=0, label=None, labels="balanced") == [2, 0, 1, 2, 0, 1]
    assert classes_for(range(3), 3, seed=0, label=1, labels="balanced") == [1, 1, 1]
    assert classes_for(range(3), None, seed=0, label=None, labels="random") is None


def test_a_drawn_class_is_the_samples_own_whatever_the_batch():
    together = classes_for(range(200), 3, seed=5, label=None, labels="random")
    assert [classes_for([i], 3, seed=5, label=None, labels="random")[0] for i in range(200)] == together
    assert set(together) == {0, 1, 2}
    assert classes_for(range(200), 3, seed=6, label=None, labels="random") != together


@pytest.mark.parametrize(
    ("num_classes", "label", "labels", "sentence"),
    [
        (None, 1, "balanced", "label=1 needs a class-conditional network"),
        (3, 3, "balanced", r"label must lie in 0\.\.2, got 3"),
        (3, None, "equal", "labels must be one of balanced, random, got 'equal'"),
    ],
)
def test_what_cannot_be_is_refused(num_classes, label, labels, sentence):
    with pytest.raises(ValueError, match=sentence):
        classes_for(range(2), num_classes, seed=0, label=label, labels=labels)


@pytest.mark.parametrize("captions", [None, lambda indices, device: None])
def test_a_text_network_without_captions_is_told_which_data_has_some(captions):
    with pytest.raises(ValueError, match="choose a dataset that has some, such as data=fashion_mnist_captions"):
        text_for(range(2), captions, CPU)


def test_a_class_is_not_asked_of_a_text_network():
    with pytest.raises(ValueError, match="label=1 needs a class-conditional network, and this one takes text"):
        text_for(range(2), None, CPU, label=1)
