"""Label dropout is drawn by the caller's generator, at the network's rate."""

from __future__ import annotations

import pytest
import torch

from flowexp.backbones import create_backbone


def network(**options):
    return create_backbone("dit_nano4", resolution=8, channels=1, depth=1, **options)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_labels_are_hidden_at_the_rate_of_the_network():
    label = torch.zeros(100_000, dtype=torch.int64)
    dropped = network(num_classes=10, label_dropout=0.1).drop_labels(label, generator())
    assert set(dropped.tolist()) == {0, 10}
    assert (dropped == 10).float().mean().item() == pytest.approx(0.1, abs=0.004)  # 4 standard deviations
    assert not label.any(), "the caller's labels are left alone"


def test_what_is_hidden_is_a_function_of_the_generator():
    net, label = network(num_classes=10, label_dropout=0.5), torch.arange(10)
    assert torch.equal(net.drop_labels(label, generator(1)), net.drop_labels(label, generator(1)))
    assert not torch.equal(net.drop_labels(label, generator(1)), net.drop_labels(label, generator(2)))


@pytest.mark.parametrize(("rate", "hidden"), [(0.0, 0), (1.0, 1000)])
def test_rates_0_and_1_are_never_and_always(rate: float, hidden: int):
    dropped = network(num_classes=10, label_dropout=rate).drop_labels(torch.zeros(1000, dtype=torch.int64), generator())
    assert (dropped == 10).sum() == hidden


def test_an_unconditional_network_hides_nothing():
    label = torch.arange(10)
    assert torch.equal(network(label_dropout=1.0).drop_labels(label, generator()), label)


def test_captions_are_hidden_as_wholes_for_the_samples_whose_class_would_be():
    text = create_backbone(
        "mmdit_nano", resolution=8, channels=1, depth=1, text_dim=6, text_length=5, label_dropout=0.5
    )
    text.set_null_text(torch.randn(5, 6))
    captions, classes = torch.randn(100, 5, 6), torch.zeros(100, dtype=torch.int64)
    hidden = network(num_classes=10, label_dropout=0.5).drop_labels(classes, generator()) == 10
    assert 20 < hidden.sum() < 80
    dropped = text.drop_labels(captions, generator())
    assert torch.equal(dropped[hidden], text.null_text.expand(int(hidden.sum()), -1, -1))
    assert torch.equal(dropped[~hidden], captions[~hidden])


def test_hidden_captions_keep_the_type_of_the_embeddings():
    text = create_backbone(
        "mmdit_nano", resolution=8, channels=1, depth=1, text_dim=6, text_length=5, label_dropout=1.0
    )
    captions = torch.randn(3, 5, 6).half()
    assert text.drop_labels(captions, generator()).dtype == torch.float16
    assert not text.drop_labels(captions, generator()).any(), "the empty caption is zeros until it is set"


def test_a_rate_that_is_no_probability_is_refused():
    with pytest.raises(ValueError, match=r"label_dropout is a probability in \[0, 1\], got 10"):
        network(num_classes=10, label_dropout=10)
