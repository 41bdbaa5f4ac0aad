from __future__ import annotations

import pytest
import torch

from flowexp.integrations.encoders.base import FeatureNet, FeatureSet
from flowexp.integrations.encoders.inception import Inception


class Colours(FeatureNet):
    """Mean and largest value of each colour, from one pass."""

    name = "colours"
    dim = 3
    outputs = ("features", "spatial")

    def __init__(self):
        super().__init__()
        self.passes = 0
        self.freeze()

    def features(self, images):
        self.passes += 1
        return images.float().mean(dim=(2, 3))

    def read(self, images, wanted):
        return {"features": self.features(images), "spatial": images.float().amax(dim=(2, 3))}

    def protocol(self):
        return {"encoder": self.name}


PICTURES = torch.randint(0, 256, (4, 1, 8, 8), dtype=torch.uint8)


def test_one_pass_gives_what_is_wanted_and_nothing_else():
    net = Colours()
    found = net.extract(PICTURES, ("spatial", "features"))
    assert net.passes == 1 and list(found) == ["spatial", "features"]
    assert torch.equal(found["features"], net(PICTURES))
    assert list(net.extract(PICTURES)) == ["features"]


def test_an_output_that_is_not_offered_is_answered_with_the_encoder_that_has_it():
    with pytest.raises(ValueError, match="colours offers features, spatial, got logits: choose encoder=inception"):
        Colours().extract(PICTURES, ("features", "logits"))


def test_every_output_of_a_spoilt_sample_is_nan_and_no_other():
    found = FeatureSet(features=torch.randn(3, 2), logits=torch.randn(3, 5))
    spoilt = found.with_nan(torch.tensor([False, True, False]))
    for name, output in spoilt.items():
        assert output.isnan().all(1).tolist() == [False, True, False]
        assert torch.equal(output[::2], found[name][::2])
    assert {name: len(output) for name, output in found.rows(2).items()} == {"features": 2, "logits": 2}


def test_only_inceptions_scores_go_by_the_papers_names():
    scores = ("frechet", "frechet_infinity", "sfid", "kid_std", "precision")
    inception = Inception.__new__(Inception)
    assert [inception.key(score) for score in scores] == ["fid", "fid_infinity", "sfid", "kid_std", "precision"]
    assert [Colours().key(score) for score in scores] == [
        *("frechet/colours", "frechet_infinity/colours", "sfid/colours", "mmd_std/colours", "precision/colours")
    ]
