from __future__ import annotations

from dataclasses import fields, replace

import pytest

from flowexp.metrics import ProtocolCard, compare
from flowexp.metrics.card import NOT_PROTOCOL, WORDS

CARD = ProtocolCard(
    sampler={"solver": "euler_maruyama", "num_steps": 50},
    nfe=50,
    stochastic=True,
    num_samples=50_000,
    labels="random",
    reference={"dataset": "imagenet256", "split": "train", "num": 1_281_167, "hash": "00ff"},
    features={"name": "inception", "hash": "6726825d"},
    resize="bilinear as TensorFlow 1, not antialiased",
    precision="32-true",
    seed=0,
    checkpoint_step=400_000,
    diffusion="sigma",
    commit="abc",
)


def test_text_gives_the_card_back():
    assert ProtocolCard.from_json(CARD.to_json()) == CARD


def test_every_field_is_either_compared_or_left_out():
    assert {field.name for field in fields(ProtocolCard)} == {*WORDS, *NOT_PROTOCOL}


@pytest.mark.parametrize("change", [{"seed": 1}, {"commit": "def"}, {"checkpoint_step": 7}])
def test_another_network_or_seed_by_the_same_protocol_compares(change):
    other = replace(CARD, **change)
    assert other.short_hash == CARD.short_hash and compare(CARD, other) == []


@pytest.mark.parametrize(
    "change, phrase",
    [
        ({"num_samples": 7500}, "number of samples: 50000 and 7500"),
        ({"labels": "balanced"}, "how labels are drawn: random and balanced"),
        ({"sampler": {"solver": "heun", "num_steps": 50}}, "sampler: solver euler_maruyama and heun"),
        ({"reference": {**CARD.reference, "num": 10_000}}, "reference set: num 1281167 and 10000"),
        ({"ssc": {"s0": 1.1, "s1": 1.0}}, "scale along the path (SSC): None and {'s0': 1.1, 's1': 1}"),
        ({"guidance": 1.5}, "guidance scale: 1 and 1.5"),
        ({"ema": False}, "whether the EMA weights sample: True and False"),
    ],
)
def test_another_protocol_is_said_in_words_and_has_another_hash(change, phrase):
    other = replace(CARD, **change)
    assert compare(CARD, other) == [phrase]
    assert other.short_hash != CARD.short_hash


def test_the_hash_does_not_depend_on_how_a_value_is_written():
    same = replace(CARD, guidance=1, sampler={"num_steps": 50.0, "solver": "euler_maruyama"})
    assert same.short_hash == CARD.short_hash and len(CARD.short_hash) == 8
    assert compare(replace(CARD, ssc={"s": (1, 2)}), replace(CARD, ssc={"s": [1.0, 2]})) == []


def test_labels_are_one_of_three():
    with pytest.raises(ValueError, match="balanced, random or none, got 'equal'"):
        replace(CARD, labels="equal")
