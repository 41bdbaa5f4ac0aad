"""`--help` prints the comments of yamls and imports nothing that they configure: the comments must list the choices."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra.utils import get_object

from flowexp.flow.argument_kinds import signature
from flowexp.flow.choices import choices_of

CONF = Path(__file__).parents[2] / "conf"


def nodes(content: Any) -> Iterator[dict[str, Any]]:
    """All groups of keys with a `_target_`."""
    if isinstance(content, dict):
        if "_target_" in content:
            yield content
        for value in content.values():
            yield from nodes(value)


def keys_with_choices() -> Iterator[tuple[str, str, tuple[str, ...]]]:
    for file in sorted(CONF.rglob("*.yaml")):
        for node in nodes(yaml.safe_load(file.read_text())):
            hints, _ = signature(get_object(node["_target_"]))
            for key in sorted(node.keys() & hints.keys()):
                if choices := choices_of(hints[key]):
                    yield str(file.relative_to(CONF)), key, choices


CHOICES = list(keys_with_choices())


def test_the_objectives_of_the_papers_are_among_them():
    assert ("objective/lcf.yaml", "denominator", ("alg1", "eq14", "infonce")) in CHOICES


@pytest.mark.parametrize(("file", "key", "choices"), CHOICES, ids=[f"{file}-{key}" for file, key, _ in CHOICES])
def test_a_key_that_is_one_of_some_words_lists_them_in_its_comment(file: str, key: str, choices: tuple[str, ...]):
    lines = re.findall(rf"^ *{key}: (.*)$", (CONF / file).read_text(), re.MULTILINE)
    assert [choice for line in lines for choice in choices if not re.search(rf"\b{choice}\b", line)] == []
