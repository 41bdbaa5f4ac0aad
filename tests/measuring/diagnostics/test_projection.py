from __future__ import annotations

import pytest
import torch

from flowexp.measuring.diagnostics import create_projection


def test_a_projection_keeps_squared_lengths_on_average_and_noise_white():
    projection = create_projection(300, max_dim=40, seed=1)
    noise = torch.randn(4000, 3, 10, 10)
    found = projection(noise)
    assert found.shape == (4000, 40)
    assert float(found.square().sum(1).mean()) == pytest.approx(300, rel=0.02)
    rows = projection.matrix
    torch.testing.assert_close(rows @ rows.T, projection.noise_variance * torch.eye(40, dtype=torch.float64))


def test_few_numbers_are_kept_as_they_are():
    images = torch.randn(5, 1, 4, 4)
    for projection in (create_projection(16, max_dim=16), create_projection(16, max_dim=None)):
        assert torch.equal(projection(images), images.flatten(1)) and projection.noise_variance == 1
    assert create_projection(16, None).protocol() == {"space": "all values", "dim": 16, "projected_dim": 16}


def test_the_subspace_is_decided_by_its_key():
    one, again, other = (create_projection(50, 8, seed).matrix for seed in (0, 0, 1))
    assert torch.equal(one, again) and not torch.allclose(one, other)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        create_projection(50, 0)
