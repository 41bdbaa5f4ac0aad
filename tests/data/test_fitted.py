"""A dataset in the shape of a network that was trained on another one."""

from __future__ import annotations

import pytest
import torch

from flowexp.data import Digits
from flowexp.data.fitted import FittedImages, fitted


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


def test_a_dataset_of_the_right_shape_stays_itself(digits: Digits):
    assert fitted(digits, 1, 8) is digits


def test_each_pixel_becomes_a_block_in_every_channel(digits: Digits):
    found = fitted(digits, 3, 28)
    stored = found.test.subset(5).images
    data = found.to_data(stored)
    assert data.shape == (5, 3, 28, 28) and torch.equal(data[:, 0], data[:, 2])
    assert data.mean() == pytest.approx(digits.to_data(stored).mean().item(), abs=0.02)
    assert found.name == "digits as 3 x 28 x 28" and found.num_classes == 10
    assert torch.equal(found.train.labels, digits.train.labels)


def test_colour_becomes_its_mean_and_a_constant_picture_stays_one(digits: Digits):
    class Coloured(Digits):
        channels = 3

        def to_data(self, images):
            return torch.tensor([-1.0, 0.5, 0.8]).view(1, 3, 1, 1).expand(len(images), 3, 8, 8)

    source = Coloured()
    source.setup()
    torch.testing.assert_close(fitted(source, 1, 4).to_data(torch.zeros(2)), torch.full((2, 1, 4, 4), 0.1))


def test_pictures_do_not_become_latents(digits: Digits):
    with pytest.raises(ValueError, match=r"digits has 1 channels and the network takes 4"):
        FittedImages(digits, 4, 32)
