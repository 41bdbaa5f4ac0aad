"""A dataset in the shape of a network that was trained on another one."""

from __future__ import annotations

import pytest
import torch

from flowexp.data import Digits
from flowexp.data.sets.batch_rows import Pick
from flowexp.data.sets.resized import FittedImages, fit, fitted
from flowexp.measuring.callbacks.probe import ProbeMonitor


@pytest.fixture(scope="module")
def digits() -> Digits:
    data = Digits()
    data.setup()
    return data


def test_a_dataset_of_the_right_shape_stays_itself(digits: Digits):
    assert fitted(digits, 1, 8) is digits


def test_pictures_grow_in_every_channel_and_keep_their_labels(digits: Digits):
    found = fitted(digits, 3, 28)
    chosen, stored = found.test.subset(5), digits.test.subset(5)
    assert chosen.images.shape == (5, 3, 28, 28) and chosen.images.dtype == torch.uint8
    assert torch.equal(chosen.images[:, 0], chosen.images[:, 2]) and torch.equal(chosen.labels, stored.labels)
    assert chosen.images.float().mean() == pytest.approx(stored.images.float().mean().item(), rel=0.05)
    batch = found.train.batch(Pick(torch.tensor([3, 1])))
    assert torch.equal(batch["image"], found.train.select(torch.tensor([3, 1])).images)
    assert found.name == "digits as 3 x 28 x 28" and (found.num_classes, len(found.test)) == (10, len(digits.test))


def test_colour_becomes_its_mean_and_a_flat_picture_stays_flat():
    pictures = torch.tensor([10, 40, 100], dtype=torch.uint8).view(1, 3, 1, 1).expand(2, 3, 8, 8)
    assert torch.equal(fit(pictures, 1, 5), torch.full((2, 1, 5, 5), 50, dtype=torch.uint8))


def test_pixels_that_are_halved_become_the_mean_of_their_neighbours():
    picture = torch.tensor([[0, 100], [100, 200]], dtype=torch.uint8).repeat_interleave(4, 0).repeat_interleave(4, 1)
    small = fit(picture[None, None], 1, 4)[0, 0]
    assert small[0, 0] == 0 and small[-1, -1] == 200 and torch.equal(small, small.T)


def test_pictures_do_not_become_latents(digits: Digits):
    with pytest.raises(ValueError, match=r"digits has 1 channels and the network takes 4"):
        FittedImages(digits, 4, 32)


def test_a_network_is_probed_on_pictures_of_another_size(digits: Digits):
    from flowexp.backbones import create_backbone
    from flowexp.objectives import FlowMatching

    module = FlowMatching(create_backbone("dit_nano4", resolution=12, channels=3))
    monitor = ProbeMonitor([0.1], epochs=1, max_train_images=64)
    found = monitor.measure(module, fitted(digits, 3, 12), 0)
    assert found.protocol["data"] == "digits as 3 x 12 x 12" and 0 <= found.scalars["probe/peak"] <= 1
