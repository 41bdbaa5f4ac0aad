from __future__ import annotations

import itertools

import pytest
import torch

from flowexp.flow.randomness import SampleNoise, hash_key, keyed_generator


def test_a_stream_is_a_function_of_its_key():
    first, second = (torch.randn(5, generator=keyed_generator(1, 2, 3)) for _ in range(2))
    assert torch.equal(first, second)


def test_the_seed_of_a_key_is_pinned():
    """A run resumed under another version of numpy must draw the same numbers."""
    assert hash_key(1, 2, 3) == 2295342573962467478


def test_different_keys_have_different_streams():
    """Also where numpy's SeedSequence alone would not tell them apart: zeros at the end, words of large integers."""
    keys = [(7,), (7, 0), (7, 0, 0), (0, 7), (0,), (0, 0), (2**32,), (1, 0), (0, 1), (2**32 + 7,), (7, 1), (1, 7)]
    for one, other in itertools.combinations(keys, 2):
        assert hash_key(*one) != hash_key(*other), (one, other)


@pytest.mark.parametrize("key", [(), (-1,), (1, 2**64)])
def test_a_key_that_would_be_ambiguous_is_refused(key: tuple[int, ...]):
    with pytest.raises(ValueError, match="a key is"):
        hash_key(*key)


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    SampleNoise(0, range(3), (4,)).draw()
    torch.randn(3, generator=keyed_generator(1))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_sample_does_not_depend_on_its_batch():
    together = SampleNoise(5, range(8), (3, 4, 4))
    rows = [SampleNoise(5, [index], (3, 4, 4)) for index in range(8)]
    for _ in range(3):
        assert torch.equal(together.draw(), torch.cat([row.draw() for row in rows]))


def test_indices_may_come_in_any_order_and_type():
    forward, backward = SampleNoise(5, range(4), (2,)), SampleNoise(5, torch.tensor([3, 2, 1, 0]), (2,))
    assert torch.equal(forward.draw(), backward.draw().flip(0))


def test_draws_seeds_and_indices_differ():
    noise = SampleNoise(0, range(2), (4,))
    first, second, other_seed = noise.draw(), noise.draw(), SampleNoise(1, range(2), (4,)).draw()
    rows = torch.cat([first, second, other_seed])
    assert len(rows.unique(dim=0)) == len(rows)


@pytest.mark.slow
def test_fifty_thousand_samples_have_fifty_thousand_streams():
    """A CPU generator reads 32 bits of its seed: hashed seeds would collide in one such set of four."""
    seeds = {generator.initial_seed() for generator in SampleNoise(0, range(50_000), (1,)).generators}
    assert len(seeds) == 50_000
    assert max(seeds) < 2**32


def test_the_noise_is_standard_normal_and_neighbours_are_independent():
    noise = SampleNoise(0, range(2000), (64,)).draw().double()
    assert noise.mean().abs() < 0.01
    assert noise.var() == pytest.approx(1, abs=0.02)
    assert (noise**4).mean() == pytest.approx(3, abs=0.1)
    assert (noise[1:] * noise[:-1]).mean().abs() < 0.01


def test_noise_is_float32_of_the_asked_shape():
    noise = SampleNoise(0, [4, 9], torch.Size([3, 2])).draw()
    assert (noise.shape, noise.dtype) == ((2, 3, 2), torch.float32)
