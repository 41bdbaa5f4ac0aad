"""A run by the word `last`, or by the folder that its runs lie in."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flowexp import __version__
from flowexp.cli import launch
from flowexp.cli.commands import COMMANDS, WITHOUT_A_JOB
from flowexp.cli.named_runs import named_run, with_runs_named
from flowexp.cli.recipes import find_recipes


@pytest.fixture
def three_runs(workdir: Path) -> list[Path]:
    """Three runs of two names, the newest last."""
    runs = [Path("outputs", name) for name in ("digits_fm/monday", "digits_lcf/tuesday", "digits_fm/friday, late")]
    for age, run in enumerate(runs):
        (run / "checkpoints").mkdir(parents=True)
        (run / "config.yaml").write_text("name: x\n")
        os.utime(run / "config.yaml", (1000 + age, 1000 + age))
    return runs


def test_the_newest_of_all_and_of_a_folder_are_announced(three_runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    assert named_run("last") == named_run("outputs/digits_fm") == three_runs[2]
    assert named_run("outputs/digits_lcf") == three_runs[1]
    said = capsys.readouterr().err.splitlines()
    assert said[0] == f"run=last is {three_runs[2]}" and len(said) == 3


def test_a_run_and_what_is_no_folder_stay_as_they_are(three_runs: list[Path], capsys: pytest.CaptureFixture) -> None:
    Path("empty").mkdir()
    for name in (str(three_runs[0]), "hub:name", "no/such/folder", "empty"):
        assert named_run(name) == Path(name)
    assert capsys.readouterr().err == ""


def test_a_run_called_last_is_itself(three_runs: list[Path]) -> None:
    three_runs[0].rename("last")
    assert named_run("last") == Path("last")


def test_without_a_run_last_says_so(workdir: Path) -> None:
    with pytest.raises(ValueError, match="run=last is the newest run below outputs, and there is none"):
        named_run("last")


def test_overrides_name_their_runs_in_whatever_letters(three_runs: list[Path]) -> None:
    given = ["run=last", "++guide=outputs/digits_lcf", "run=last,outputs/digits_lcf", "seed=1", "ckpt=last"]
    newest = "'outputs/digits_fm/friday, late'"
    assert with_runs_named(given) == [
        f"run={newest}", "++guide='outputs/digits_lcf/tuesday'", f"run={newest},'outputs/digits_lcf/tuesday'",
        "seed=1", "ckpt=last",
    ]  # fmt: skip


@pytest.mark.parametrize("words", [[], ["--help"], ["-h"]])
def test_the_program_has_a_line_for_each_command(words: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["flowexp", *words])
    assert launch.main() == 0
    page = capsys.readouterr().out
    for command in ("demo", *COMMANDS, *WITHOUT_A_JOB):
        (line,) = [line for line in page.splitlines() if line.startswith(f"  {command} ")]
        assert 30 < len(line) <= 110


@pytest.mark.parametrize("words", [["--version"], ["train", "--version"], ["report", "--version"]])
def test_the_program_knows_its_version(words: list[str], monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["flowexp", *words])
    assert launch.main() == 0
    assert capsys.readouterr().out == f"flowexp {__version__}\n"


def test_a_module_knows_its_version_too(capsys) -> None:
    assert launch.open_door("train", ["--version"]) == 0
    assert capsys.readouterr().out == f"flowexp {__version__}\n"


def test_an_unknown_command_is_answered_with_the_nearest(monkeypatch, capsys) -> None:
    monkeypatch.setattr("sys.argv", ["flowexp", "trian"])
    assert launch.main() == 2
    assert "there is no command trian; did you mean train" in capsys.readouterr().err


def test_the_demo_is_a_recipe(monkeypatch) -> None:
    given: list[list[str]] = []
    monkeypatch.setattr("flowexp.reproduce.main", lambda: given.append(launch.sys.argv[1:]) or 0)
    monkeypatch.setattr("sys.argv", ["flowexp", "demo", "redraw=true"])
    assert launch.main() == 0
    assert given == [["side_by_side", "budget=digits", "redraw=true"]] and given[0][0] in find_recipes()
