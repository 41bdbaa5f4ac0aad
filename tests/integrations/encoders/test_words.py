"""Hashed words: their bits written out by hand, and what a text network's embeddings promise."""

from __future__ import annotations

import hashlib

import pytest
import torch

from flowexp.integrations.encoders.words import HashedWords, signs_of, words_of


def test_a_words_vector_is_the_bits_of_its_hash_written_out():
    digest = hashlib.shake_128(b"sneaker").digest(3)
    bits = [(byte >> place) & 1 for byte in digest for place in range(7, -1, -1)]
    assert signs_of("sneaker", 20).tolist() == [1.0 if bit else -1.0 for bit in bits[:20]]


def test_the_vectors_are_these_in_every_process_and_release():
    shown = {word: "".join("+" if sign > 0 else "-" for sign in signs_of(word, 16)) for word in ("sneaker", "a")}
    assert shown == {"sneaker": "---++++-+--+-++-", "a": "+----+-+++--+---"}


def test_words_are_as_far_from_each_other_as_random_ones():
    vectors = torch.stack([torch.from_numpy(signs_of(f"word{number}", 128)) for number in range(400)])
    cosines = (vectors @ vectors.T / 128)[~torch.eye(400, dtype=torch.bool)]
    assert float(cosines.mean()) == pytest.approx(0, abs=4e-3)
    assert float(cosines.var()) == pytest.approx(1 / 128, rel=0.03)
    assert abs(float(vectors.mean())) < 0.01


def test_a_caption_is_its_words_in_their_order_and_zeros_after_them():
    encoder = HashedWords(dim=8, length=5)
    found = encoder.encode(["A grey sneaker.", ""])
    assert found.shape == (2, *encoder.shape) == (2, 5, 8) and found.dtype == torch.float32
    for place, word in enumerate(("a", "grey", "sneaker")):
        assert found[0, place].tolist() == signs_of(word, 8).tolist()
    assert not found[0, 3:].any() and not found[1].any()


def test_long_captions_are_cut():
    encoder = HashedWords(dim=8, length=3)
    assert torch.equal(encoder.encode(["one two three four five"]), encoder.encode(["one two three"]))


def test_an_embedding_does_not_depend_on_its_neighbours():
    encoder = HashedWords()
    assert torch.equal(encoder.encode(["a coat", "a much longer caption of a dress"])[:1], encoder.encode(["a coat"]))


def test_case_and_punctuation_are_dropped():
    assert words_of("An ANKLE-boot, grey!") == ["an", "ankle", "boot", "grey"]
    assert words_of("Schürze") == ["schürze"] and words_of(" .,- ") == []


def test_half_precision_loses_nothing():
    found = HashedWords().encode(["a grey picture of a bag"])
    assert torch.equal(found.half().float(), found)


def test_the_fingerprint_tells_sizes_apart_and_nothing_else():
    assert HashedWords(dim=64).fingerprint == HashedWords(dim=64).fingerprint != HashedWords(dim=128).fingerprint
    assert len(HashedWords().fingerprint) == 16


@pytest.mark.parametrize("options", [{"dim": 0}, {"length": -1}])
def test_a_size_below_one_is_refused(options: dict[str, int]):
    with pytest.raises(ValueError, match="dim and length must be at least 1, got"):
        HashedWords(**options)
