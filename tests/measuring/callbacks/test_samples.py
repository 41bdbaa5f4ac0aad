from __future__ import annotations

import pytest
import torch

from flowexp.data import to_uint8
from flowexp.measuring.callbacks.samples import SampleGridMonitor
from flowexp.records.figures import image_grid


@pytest.mark.slow
def test_the_grid_shows_the_same_numbered_samples_every_time(module, datamodule):
    with module.averaged():
        found = [SampleGridMonitor(num_samples=6, columns=3).measure(module, datamodule, seed=4) for _ in range(2)]
    expected = image_grid(to_uint8(module.sample(range(6), seed=4).images), columns=3)
    assert torch.equal(found[0].image, expected) and torch.equal(found[1].image, expected)
    assert found[0].protocol["nfe"] == 2 and found[0].protocol["seed"] == 4


def test_an_empty_grid_is_refused():
    with pytest.raises(ValueError, match="at least 1 sample"):
        SampleGridMonitor(num_samples=0)
