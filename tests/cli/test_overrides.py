"""Overrides are read once and by Hydra's grammar; what it cannot read is quoted where it is clear what is meant."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hydra.core.override_parser.types import ChoiceSweep

from flowexp.cli.overrides import in_any_sampler, last_of, places, read, readable

NAMES = [
    "josé", "a'b", 'a"b', "lr=0.1", "a,b", "lr=0.1,x", "a(b", "f(x)", "[v1]", "a[1],b", "{a}", "a{b:1}", "a#b", "a&b",
    "a;b", "a b", " a", "a\nb", "2026_11", "007", "1e3", "true", "nan", "a|b", "a*b?", "日本", "a'b\"c", "x\\é",
    "glob(*)", "~x",
]  # fmt: skip
KEYS = ["run", "run_dir", "output_root", "name", "ckpt", "checkpoint", "guide", "file", "data.root", "hydra.sweep.dir"]


def value_of(argument: str) -> Any:
    value = read([argument])[0].value()
    return [getattr(each, "text", each) for each in value.list] if isinstance(value, ChoiceSweep) else value


@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_taken_as_it_is_typed(name: str) -> None:
    for key in KEYS:
        assert value_of(readable(f"{key}={name}")) == name, key
        assert value_of(readable(f"++{key}={name}")) == name, key


@pytest.mark.parametrize("name", NAMES)
def test_quotes_are_set_once(name: str) -> None:
    once = readable(f"run={name}")
    assert readable(once) == once


@pytest.mark.parametrize(
    ("typed", "runs"),
    [
        ("a,b", ["a", "b"]),
        ("josé,b=1", ["josé", "b=1"]),
        ("'a,b',c", ["a,b", "c"]),
        ("[v1],[v2]", ["[v1]", "[v2]"]),
        ("a[1,2],b", ["a[1,2]", "b"]),
    ],
)
def test_a_comma_separates_runs_in_a_sweep(typed: str, runs: list[str]) -> None:
    assert value_of(readable(f"run={typed}", sweeps=True)) == runs


@pytest.mark.parametrize("sweep", ["choice(a,b)", "glob(*)", "range(1,3)"])
def test_a_sweep_by_a_function_stays_one(sweep: str) -> None:
    assert readable(f"run={sweep}", sweeps=True) == f"run={sweep}"


@pytest.mark.parametrize("typed", ["~/r", "'~/r'", '"~/r"'])
def test_the_home_folder_is_written_out(typed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/josé")
    assert value_of(readable(f"output_root={typed}")) == "/home/josé/r"


@pytest.mark.parametrize("typed", ["null", "${output_root}/x", "'a b'", "a\\,b"])
def test_what_hydra_reads_as_it_is_meant_stays(typed: str) -> None:
    assert readable(f"run_dir={typed}") == f"run_dir={typed}"


def test_a_word_that_hydra_cannot_read_is_quoted_for_any_key() -> None:
    assert value_of(readable("logger.project=café")) == "café"
    assert value_of(readable("data.cache=true")) is True  # a place, or a yes
    assert value_of(readable("levels=[0.1,0.2]")) == [0.1, 0.2]


@pytest.mark.parametrize("argument", ["x=[é", "x={", "x='a", "x=a,é", "=3", "é=3", "a b=3", "x"])
def test_what_cannot_be_read_is_named(argument: str) -> None:
    with pytest.raises(ValueError) as refusal:
        read([readable(argument)])
    assert argument.split("=")[-1] in str(refusal.value) and "Exception" not in str(refusal.value)


def test_the_hint_is_the_right_way_to_write_it() -> None:
    with pytest.raises(ValueError, match=r"as in 'x=\"\[é\"'"):
        read(["x=[é"])
    assert value_of('x="[é"') == "[é"


@pytest.mark.parametrize("spelling", ["run=A", "+run=A", "++run=A", "run='A'", 'run="A"'])
def test_a_key_is_the_same_however_it_is_spelt(spelling: str) -> None:
    override = last_of("run", ["seed=1", spelling])
    assert override is not None and override.value() == "A"


@pytest.mark.parametrize(
    ("typed", "hydras"),
    [
        ("sampler.s0=1.5", "++sampler.s0=1.5"),
        ("sampler={num_steps: 3}", "++sampler={num_steps: 3}"),
        ("sampler=heun", "sampler=heun"),
        ("sampler=heun,euler", "sampler=heun,euler"),
        ("+sampler.x=1", "+sampler.x=1"),
        ("seed=1", "seed=1"),
    ],
)
def test_a_change_of_the_runs_own_sampler_needs_no_key_in_another(typed: str, hydras: str) -> None:
    assert in_any_sampler(typed) == hydras


def test_folders_of_a_page() -> None:
    assert places("[a,josé]") == ["a", "josé"] == places("a,josé")
    assert places("[a[1],'b,c']") == ["a[1]", "b,c"]
    assert places("~/x") == [str(Path("~/x").expanduser())]
