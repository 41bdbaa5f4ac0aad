from __future__ import annotations

import pytest
import torch

from flowexp.integrations.encoders import ENCODERS, EfficientNetLite, create_encoder
from flowexp.integrations.encoders.base import FeatureNet


class MeanColour(FeatureNet):
    """The smallest feature network: the mean of each colour through a batch normalisation."""

    name = "mean_colour"
    dim = 3

    def __init__(self):
        super().__init__()
        self.norm = torch.nn.BatchNorm1d(3)
        self.freeze()

    def features(self, images):
        return self.norm(images.float().mean(dim=(2, 3)))

    def protocol(self):
        return {"encoder": self.name}


def test_grey_pictures_are_colour_pictures_with_equal_channels():
    grey = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)
    net = MeanColour()
    torch.testing.assert_close(net(grey), net(grey.repeat(1, 3, 1, 1)), rtol=0, atol=0)


@pytest.mark.parametrize("images", [torch.rand(2, 3, 8, 8), torch.zeros(2, 4, 8, 8, dtype=torch.uint8)])
def test_pictures_whose_range_or_channels_would_be_guessed_are_refused(images):
    with pytest.raises(ValueError, match="uint8 pictures"):
        MeanColour()(images)


def test_an_encoder_is_frozen_whatever_its_owner_does():
    net = MeanColour()
    torch.nn.Sequential(net).train()
    before = net.norm.running_mean.clone()
    net(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    assert torch.equal(net.norm.running_mean, before)
    assert not any(parameter.requires_grad for parameter in net.parameters())


def test_a_classifier_can_be_trained_on_the_features():
    features = MeanColour()(torch.randint(0, 256, (4, 3, 8, 8), dtype=torch.uint8))
    head = torch.nn.Linear(3, 2)
    head(features).sum().backward()
    assert head.weight.grad is not None


@pytest.mark.slow
def test_features_are_fp32_inside_bf16_autocast():
    images = torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8)
    net = EfficientNetLite(64)
    alone = net(images)
    with torch.autocast("cpu", torch.bfloat16):
        within = net(images)
    assert torch.equal(alone, within)


def test_only_inceptions_distance_is_called_fid():
    names = {name: net.distance_name.fget(net) for name, net in ENCODERS.items()}
    assert names.pop("inception") == "fid"
    assert names == {name: f"frechet/{name}" for name in ("dinov2", "efficientnet_lite")}


def test_an_unknown_encoder_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="efficientnet_lite, inception, got 'vgg'"):
        create_encoder("vgg")
