"""Damaged files, and what a command may answer to one: a sentence that names it, or its work done."""

from __future__ import annotations

import logging
import random
import re
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

TRACE = "Traceback (most recent call last)"


def _with_a_flipped_bit(content: bytes) -> bytes:
    """The highest bit in the middle: text is no UTF-8 any more."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]


DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "cut in half": lambda content: content[: len(content) // 2],
    "one bit flipped": _with_a_flipped_bit,
    "garbage": lambda content: random.Random(0).randbytes(400),
    "zeros": lambda content: bytes(len(content)),  # as some file systems leave it after a power cut
    "a list": lambda content: b"[1, 2]\n",
    "missing": lambda content: None,
}


def damage(file: Path, how: str) -> None:
    """Makes `file` what a full disk, a power cut or a slip of the hand leaves of it."""
    content = DAMAGES[how](file.read_bytes())
    if content is None:
        file.unlink()
    else:
        file.write_bytes(content)


@dataclass(frozen=True)
class Answer:
    """What a command in this process ended with: its exit code, and all that it wrote, warnings and log included."""

    code: int
    text: str
    errors: tuple[str, ...]

    def names(self, file: Path) -> bool:
        return file.name in self.text


@dataclass(frozen=True)
class Asked:
    """Runs commands in this process; whatever they raise is a stack trace that a person would see, and a failure."""

    run: Callable[..., int]
    capsys: pytest.CaptureFixture[str]
    caplog: pytest.LogCaptureFixture

    def __call__(self, command: str, *arguments: str) -> Answer:
        return self.of(lambda: self.run(command, *arguments))

    def of(self, run: Callable[[], int]) -> Answer:
        self.capsys.readouterr()
        self.caplog.clear()
        with warnings.catch_warnings(record=True) as caught, self.caplog.at_level(logging.WARNING):
            warnings.simplefilter("always")
            code = run()
        printed = self.capsys.readouterr()
        said = [str(warning.message) for warning in caught]
        text = "\n".join([printed.out, printed.err, self.caplog.text, *said])
        return Answer(code, text, tuple(re.findall(r"^error: (.*)$", printed.err, re.MULTILINE)))


def assert_answered(answer: Answer, file: Path, must_name: bool) -> None:
    """Refused in one sentence, and the file is named, or done; where the file is needed, with a word about it."""
    assert answer.code in (0, 2), answer.text
    assert TRACE not in answer.text, answer.text
    if answer.code == 2:
        assert len(answer.errors) == 1, answer.text
        assert answer.names(file), f"no word of {file.name}: {answer.errors[0]}"
    elif must_name:
        assert answer.names(file), f"{file.name} is damaged, and nothing says so:\n{answer.text}"
