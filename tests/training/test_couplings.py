"""Pairings of noise and data."""

from __future__ import annotations

import math
from itertools import permutations

import pytest
import torch

from flowexp.training.couplings import Independent, MinibatchOT


def test_optimal_transport_is_the_best_of_all_pairings():
    generator = torch.Generator().manual_seed(0)
    data, noise = torch.randn(2, 5, 1, 2, 2, generator=generator)
    paired = MinibatchOT().pair(data, noise)
    costs = [float((data - noise[list(order)]).square().sum()) for order in permutations(range(5))]
    assert float((data - paired).square().sum()) == min(costs)
    assert min(costs) < max(costs)


def test_optimal_transport_only_reorders():
    data, noise = torch.randn(2, 16, 3)
    paired = MinibatchOT().pair(data, noise)
    assert sorted(map(tuple, paired.tolist())) == sorted(map(tuple, noise.tolist()))


def test_optimal_transport_keeps_the_law_of_the_noise_but_not_that_given_the_class():
    """Two classes at -1 and 1: each is trained on its half of the noise, of mean -+sqrt(2 / pi), far from N(0, 1)."""
    generator, everyone, sides = torch.Generator().manual_seed(0), [], []
    for _ in range(200):
        side = torch.tensor([-1.0, 1.0]).repeat(16)[:, None]
        noise = MinibatchOT().pair(
            side + 0.1 * torch.randn(32, 1, generator=generator), torch.randn(32, 1, generator=generator)
        )
        everyone.append(noise)
        sides.append(side)
    noise, side = torch.cat(everyone), torch.cat(sides)
    assert float(noise.mean()) == pytest.approx(0, abs=0.04) and float(noise.std()) == pytest.approx(1, abs=0.03)
    assert float(noise[side > 0].mean()) == pytest.approx((2 / math.pi) ** 0.5, abs=0.05)


def test_independent_noise_stays_in_its_row():
    noise = torch.randn(4, 2)
    assert Independent().pair(torch.randn(4, 2), noise) is noise


def test_optimal_transport_is_found_in_full_precision_under_autocast():
    data, noise = torch.randn(2, 16, 3)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(MinibatchOT().pair(data, noise), MinibatchOT().pair(data, noise))


def test_a_batch_that_is_neither_everyones_nor_ones_own_is_refused():
    with pytest.raises(ValueError, match="must be one of global, local, got 'all'"):
        MinibatchOT(batch="all")
