"""The catalogue of experiments: its counts against published ones, and the committed page against a new one."""

from __future__ import annotations

import pytest

from experiments.catalogue import (
    PAGE,
    SECTIONS,
    Size,
    catalogue,
    compose_experiment,
    entry_of,
    extra_flops,
    first_comment,
    hours,
    list_experiments,
    section_word,
    size_of,
    steps_of,
)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("imagenet256_s_fm", 32_858_896, 6.06),
        ("imagenet256_b_fm", 130_303_504, 23.01),
        ("imagenet256_l_fm", 457_824_272, 80.71),
        ("imagenet256_xl_fm", 674_816_272, 118.64),
    ],
)
def test_sizes_and_operations_are_those_published(name: str, parameters: int, gmacs: float) -> None:
    size = size_of(compose_experiment(name))  # DiT (Peebles and Xie 2023), Table 1, counts multiply-adds
    assert size.parameters == pytest.approx(parameters, rel=1e-3)
    assert size.forward / 2e9 == pytest.approx(gmacs, rel=0.01)


@pytest.mark.slow
def test_a_text_network_and_a_unet_are_sized_without_weights() -> None:
    assert size_of(compose_experiment("coco_mmdit_repa")).parameters == pytest.approx(505e6, rel=0.01)
    assert size_of(compose_experiment("imagenet256_unet")).parameters == pytest.approx(76e6, rel=0.01)


@pytest.mark.slow
def test_epochs_and_steps_are_steps() -> None:
    assert steps_of(compose_experiment("cifar10_fm")) == 1200 * 195
    assert steps_of(compose_experiment("cifar10_fm_sizes")) == 234_000
    assert steps_of(compose_experiment("imagenet256_b_fm")) == 400_000


def test_cost_is_three_passes_and_what_terms_run() -> None:
    plain, aligned = entry_of("imagenet256_b_fm"), entry_of("imagenet256_b_repa")
    images = 256 * 400_000
    assert plain.flops == 3 * size_of(compose_experiment("imagenet256_b_fm")).forward * images
    assert aligned.flops - plain.flops == pytest.approx(46e9 * images)
    distilled = compose_experiment("cifar10_ddaepp")
    assert extra_flops(distilled, Size(parameters=1, forward=3, tokens=1)) == pytest.approx(16)


@pytest.mark.slow
def test_the_method_names_what_is_not_the_default() -> None:
    assert entry_of("fashion_repa_mafm").method == "mafm + repa"
    assert entry_of("fashion_vp").method == "fm + sbdm_vp"
    assert entry_of("fashion_fm").method == "fm"


@pytest.mark.parametrize(("seconds", "text"), [(1, "< 0.01"), (360, "0.1"), (36_000, "10"), (3.6e6, "1,000")])
def test_hours_have_two_digits(seconds: float, text: str) -> None:
    assert hours(seconds) == text


def test_every_experiment_has_a_section() -> None:
    assert {section_word(name) for name in list_experiments()} == {
        word for words in SECTIONS.values() for word in words
    }


def test_the_committed_page_lists_every_experiment_by_its_comment() -> None:
    rows = [line.split(" | ")[:2] for line in PAGE.read_text().splitlines() if line.startswith("| `")]
    expected = [[f"| `{name}`", first_comment(name)] for name in list_experiments()]
    assert sorted(rows) == sorted(expected)


@pytest.mark.slow
def test_the_committed_page_is_up_to_date() -> None:
    assert PAGE.read_text() == catalogue(), "run: python -m experiments.catalogue"
