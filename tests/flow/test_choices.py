from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import pytest

from flowexp.flow.argument_kinds import check_kind
from flowexp.flow.choices import choices_of, chosen, nearest

Form = Literal["l1", "rms_squared"]


def test_a_part_is_chosen_by_its_name():
    assert chosen("solver", "heun", {"euler": 1, "heun": 2}) == 2


@pytest.mark.parametrize(
    ("name", "hint"), [("huen", r"'huen'; did you mean heun\?"), ("Euler", r"did you mean euler"), ("dpm", r"'dpm'")]
)
def test_a_name_that_there_is_not_is_answered_with_the_nearest(name: str, hint: str):
    with pytest.raises(ValueError, match=rf"^solver must be one of euler, heun, got .*{hint}\??$"):
        chosen("solver", name, {"euler": 1, "heun": 2})


def test_nearness_has_a_limit_of_choice():
    assert nearest("val/loss", ["train/loss"], cutoff=0.9) == ""
    assert nearest("val/loss", ["train/loss"], cutoff=0.0) == "; did you mean train/loss?"


@pytest.mark.parametrize(
    ("hint", "choices"),
    [
        (Form, ("l1", "rms_squared")),
        (Form | None, ("l1", "rms_squared")),
        (float | Literal["raw"], ("raw",)),
        (str | Literal["raw"], ()),
        (str, ()),
        (Any, ()),
        (Literal[1, 2], ()),
    ],
)
def test_a_hint_tells_which_words_it_allows(hint: Any, choices: tuple[str, ...]):
    assert choices_of(hint) == choices


@pytest.mark.parametrize(("hint", "value"), [(Form, "l2"), (Form | None, "l2"), (Sequence[Form], ["l1", "l2"])])
def test_validation_reads_choices_from_the_signature(hint: Any, value: Any):
    with pytest.raises(ValueError, match=r"objective\.form must be one of l1, rms_squared, got 'l2'; did you mean l1"):
        check_kind("objective.form", value, hint)


@pytest.mark.parametrize(("hint", "value"), [(Form, "l1"), (Form | None, None), (Sequence[Form], ["l1"]), (str, "l2")])
def test_what_a_signature_allows_passes(hint: Any, value: Any):
    check_kind("objective.form", value, hint)
