"""What is shown can neither fail nor be taken for markup."""

from __future__ import annotations

import io
import os
import sys

import pytest
from rich.table import Table

from flowexp.cli.assembly.plan import print_plan
from flowexp.cli.terminal import console, unbreakable


class Gone(io.StringIO):
    """A terminal that was closed."""

    def write(self, text: str) -> int:
        raise BrokenPipeError(32, "Broken pipe")

    def flush(self) -> None:
        raise BrokenPipeError(32, "Broken pipe")


def test_work_goes_on_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", Gone())
    monkeypatch.setattr(sys, "stderr", None)
    with unbreakable():
        print("a line")
        print("another", file=sys.stderr)
        console().print(Table("a column"))
        console(to_stderr=True).print("x")
    assert sys.stderr is None


def test_a_pipe_that_is_closed_ends_quietly() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as pipe, pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "stdout", pipe)
        with unbreakable():
            print("x" * 100_000, flush=True)
            print("and more")


def test_a_letter_that_the_terminal_lacks_is_shown_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    bytes_ = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(bytes_, encoding="ascii"))
    with unbreakable():
        print("josé")
    assert bytes_.getvalue() == b"jos\\xe9\n"


@pytest.mark.parametrize("text", ["d[a]", "d[/a]", "[/]", "[bold]x", ":smile:", "[noise_levels]"])
def test_brackets_are_no_markup(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    print_plan({"data": text})
    assert text in capsys.readouterr().out


def test_no_table_is_printed_by_a_console_that_reads_markup() -> None:
    from pathlib import Path

    import flowexp

    files = Path(flowexp.__file__).parent.glob("*.py")
    assert not [file.name for file in files if file.name != "terminal.py" and "Console(" in file.read_text()]
