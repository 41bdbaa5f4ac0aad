"""Numbers that may not stand beside each other are told apart, by the name of every field that differs."""

from __future__ import annotations

from flowexp.metrics.card import ProtocolCard
from flowexp.reporting.protocols import card_hash, differences

CARD = ProtocolCard(
    sampler={"solver": "euler"}, nfe=50, stochastic=False, num_samples=100, labels="none", reference={"set": "digits"},
    features={"net": "inception"}, resize="bilinear", precision="32-true", seed=0, checkpoint_step=10,
)  # fmt: skip


def test_equal_protocols_differ_in_nothing():
    assert differences([{"a": 1, "b": {"c": 2.0}}, {"b": {"c": 2}, "a": 1.0}]) == []


def test_every_field_that_differs_is_named_with_all_values_at_any_depth():
    found = differences([{"seed": 0, "sampler": {"s0": 1.0}}, {"seed": 1, "sampler": {"s0": 1.1}, "new": 3}])
    assert [(d.field, d.values) for d in found] == [
        ("sampler.s0", ("1.0", "1.1")),
        ("new", ("absent", "3")),
        ("seed", ("0", "1")),
    ]


def test_luck_decides_nothing():
    assert [
        d.decides for d in differences([{"seed": 0, "commit": "a", "nfe": 1}, {"seed": 1, "commit": "b", "nfe": 2}])
    ] == [
        True,
        False,
        False,
    ]


def test_a_card_has_its_hash_wherever_it_lies():
    card = CARD.to_dict()
    assert card_hash(card) == card_hash({"card": card}) == CARD.short_hash
    assert card_hash({"short_hash": "abc"}) == card_hash(card | {"card": "abc", "weights": "ema"}) == "abc"
    assert card_hash({"num_samples": 3}) is None
    assert card_hash({"card": card | {"from_the_future": 1}}) is None
