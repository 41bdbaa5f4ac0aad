"""Every number's card: what is on it, equal hashes for numbers that compare, and words for what keeps others apart."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest

from flowexp.records.protocol_card import (
    NOT_PROTOCOL,
    WORDS,
    ProtocolCard,
    card_hash,
    cards_of,
    differences,
    keeps_apart,
)

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
    metrics={"frechet": {}, "precision_recall": {"k": 3}},
)


def protocol(**changes) -> dict:
    """What a measurement of fid and precision keeps."""
    card = replace(CARD, **changes)
    cards = {"fid": card.hash_of("frechet"), "precision": card.hash_of("precision_recall")}
    return card.to_dict() | {"card": card.short_hash, "cards": cards, "weights": "ema"}


def summary(**changes) -> dict:
    return {"scalars": {"fid": 1.0, "precision": 0.5}, "protocol": {"samples_inception": protocol(**changes)}}


def test_every_field_is_either_compared_or_left_out():
    assert {field.name for field in fields(ProtocolCard)} == {*WORDS, *NOT_PROTOCOL}


@pytest.mark.parametrize("change", [{"seed": 1}, {"commit": "def"}, {"checkpoint_step": 7}])
def test_another_network_or_seed_by_the_same_protocol_compares(change):
    assert replace(CARD, **change).short_hash == CARD.short_hash
    assert replace(CARD, **change).hash_of("frechet") == CARD.hash_of("frechet")
    assert keeps_apart({"a": summary(), "b": summary(**change)}) == []


@pytest.mark.parametrize(
    "change, phrase",
    [
        ({"num_samples": 7500}, "number of samples 50000 and 7500"),
        ({"labels": "balanced"}, "labels of the samples random and balanced"),
        ({"sampler": {"solver": "heun", "num_steps": 50}, "nfe": 99}, "sampler.solver euler_maruyama and heun"),
        ({"reference": {**CARD.reference, "num": 10_000}}, "reference.num 1281167 and 10000"),
        ({"guidance": 1.5}, "guidance scale 1.0 and 1.5"),
        ({"guide": {"weights": "ff"}}, "guide.weights absent and ff"),
        ({"pictures": {"decoder": "ft_mse"}}, "pictures.decoder absent and ft_mse"),
        ({"labels": "captions"}, "labels of the samples random and captions"),
        ({"captions": {"order": "classes in turns"}}, "captions.order absent and classes in turns"),
        ({"ema": False}, "whether the EMA weights sample True and False"),
    ],
)
def test_another_protocol_is_said_in_words_and_has_another_hash(change, phrase):
    assert replace(CARD, **change).short_hash != CARD.short_hash
    (sentence,) = keeps_apart({"a": summary(), "b": summary(**change)})
    assert sentence.startswith("fid, precision: card ") and f" do not compare ({phrase}" in sentence


def test_the_calls_that_an_adaptive_solver_took_keep_no_two_networks_apart():
    adaptive = replace(CARD, sampler={"solver": "dopri5", "atol": 1e-6, "rtol": 1e-3}, nfe=62)
    assert adaptive.short_hash == replace(adaptive, nfe=68.5).short_hash
    assert adaptive.short_hash != replace(adaptive, sampler={**adaptive.sampler, "rtol": 1e-4}).short_hash
    assert CARD.short_hash != replace(CARD, nfe=51).short_hash


def test_the_hash_does_not_depend_on_how_a_value_is_written():
    same = replace(CARD, guidance=1, sampler={"num_steps": 50.0, "solver": "euler_maruyama"})
    assert same.short_hash == CARD.short_hash and len(CARD.short_hash) == 8
    assert replace(CARD, ssc={"s": (1, 2)}).short_hash == replace(CARD, ssc={"s": [1.0, 2]}).short_hash


def test_parts_that_sampling_does_without_are_not_in_the_hash():
    without = replace(CARD, guide=None, pictures={}, captions={}, metrics={})
    assert without.short_hash == "bba1c190"  # of the other fields alone


def test_a_metrics_own_options_decide_its_numbers_and_no_others():
    other = replace(CARD, metrics={"frechet": {}, "precision_recall": {"k": 5}, "kid": {"subsets": 100}})
    assert other.hash_of("frechet") == CARD.hash_of("frechet") == CARD.short_hash
    assert other.hash_of("precision_recall") != CARD.hash_of("precision_recall")
    (sentence,) = keeps_apart({"a": summary(), "b": summary(metrics=other.metrics)})
    assert sentence.startswith("precision: ") and "(metrics.precision_recall.k 3 and 5)" in sentence


def test_labels_are_one_of_four():
    with pytest.raises(ValueError, match="balanced, random, captions, none, got 'equal'"):
        replace(CARD, labels="equal")


# --- protocols side by side ------------------------------------------------------------------------------------------


def test_equal_protocols_differ_in_nothing():
    assert differences([{"a": 1, "b": {"c": 2.0}}, {"b": {"c": 2}, "a": 1.0}]) == []


def test_every_field_that_differs_is_named_with_all_values_at_any_depth():
    found = differences([{"seed": 0, "sampler": {"s0": 1.0}}, {"seed": 1, "sampler": {"s0": 1.1}, "new": 3}])
    assert [(d.field, d.values, d.decides) for d in found] == [
        ("sampler.s0", ("1.0", "1.1"), True),
        ("new", ("absent", "3"), True),
        ("seed", ("0", "1"), False),
    ]


def test_luck_decides_nothing():
    found = differences([protocol(), protocol(seed=1, commit="b", nfe=2)])
    assert {d.field: d.decides for d in found} == {
        "nfe": True,
        "seed": False,
        "commit": False,
        "card": False,
        "cards.fid": False,
        "cards.precision": False,
    }


def test_a_metric_that_was_not_measured_everywhere_keeps_nothing_apart():
    assert differences([{"metrics": {"frechet": {}}}, {"metrics": {"frechet": {}, "kid": {"subsets": 3}}}]) == []


def test_a_card_has_its_hash_wherever_it_lies():
    card = CARD.to_dict()
    assert card_hash(card) == card_hash({"card": card}) == CARD.short_hash
    assert card_hash({"short_hash": "abc"}) == card_hash(card | {"card": "abc", "weights": "ema"}) == "abc"
    assert card_hash({"num_samples": 3}) is None
    assert card_hash({"card": card | {"from_the_future": 1}}) is None


# --- numbers in a table ----------------------------------------------------------------------------------------------


def test_a_summary_gives_each_number_its_card_and_numbers_without_one_none():
    with_probe = summary() | {"scalars": {"probe/peak": 1.0}}
    with_probe["protocol"]["probe"] = {"epochs": 15}
    assert cards_of(with_probe) == {"fid": CARD.short_hash, "precision": CARD.hash_of("precision_recall")}
    assert cards_of({}) == cards_of({"protocol": {"solver": "euler", "nfe": 3}}) == {}


def test_cards_are_named_with_their_places():
    places = {"job 0": summary(), "job 1": summary(num_samples=7500), "job 2": summary(seed=3)}
    (sentence,) = keeps_apart(places)
    assert f"card {CARD.short_hash}, " in sentence
    assert " (job 0, job 2) and card " in sentence and " (job 1) do not compare" in sentence


def test_of_many_cards_some_are_named_and_the_rest_counted():
    (sentence,) = keeps_apart({f"job {i}": summary(num_samples=1000 + i) for i in range(9)})
    assert sentence.count("card ") == 4 and " (job 3) and 5 more do not compare" in sentence


def test_every_number_is_named_with_all_its_cards():
    """Here precision and recall have options of their own, and so hashes of their own."""
    one, other = summary(), summary(num_samples=7500)
    cards = [list(cards_of(place).values()) for place in (one, other)]
    assert len({*cards[0], *cards[1]}) == 4
    (sentence,) = keeps_apart({"job 0": one, "job 1": other})
    (first, second), (third, fourth) = cards
    assert sentence.startswith(
        f"fid, precision: card {first}, {second} (job 0) and card {third}, {fourth} (job 1) do not compare"
    )


def test_a_card_that_all_numbers_share_is_named_once():
    places = {"job 0": summary(metrics={}), "job 1": summary(metrics={}, num_samples=7500)}
    (sentence,) = keeps_apart(places)
    assert sentence.count(CARD.short_hash) == 1


def test_only_the_numbers_of_one_place_are_of_interest_where_it_is_named():
    fresh = {"protocol": {"samples_other": {"cards": {"fid": "new"}}}}
    assert keeps_apart({"old": summary(), "older": summary(nfe=3), "new": {}}, only_with="new") == []
    assert len(keeps_apart({"old": summary(), "new": fresh}, only_with="new")) == 1


@pytest.mark.parametrize("varied", ["sampler.s0", "sampler", "ssc"])
def test_what_is_varied_on_purpose_is_no_reason(varied: str):
    sampler = {**CARD.sampler, "s0": 1.1}
    places = {"job 0": summary(), "job 1": summary(sampler=sampler, ssc={"s0": 1.1})}
    assert keeps_apart(places, varied=[varied]) == []
    (sentence,) = keeps_apart(places, varied=["sampler.s1", "sampler.s"])
    assert "sampler.s0 absent and 1.1" in sentence
    places["job 2"] = summary(num_samples=7500)
    (sentence,) = keeps_apart(places, varied=[varied])
    assert "7500" in sentence and "s0" not in sentence
