"""`python -m flowexp.report`: one page, or a sentence that says what was needed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from flowexp import report
from flowexp.records.job_table import JobRow, JobTable

EMPTY = "name: early\n"


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, workdir: Path) -> Callable[..., int]:
    """Runs the command in an empty folder with a run `early` that has only begun; returns the exit code."""
    (workdir / "early").mkdir()
    (workdir / "early/config.yaml").write_text(EMPTY)

    def run(*arguments: str) -> int:
        monkeypatch.setattr(sys, "argv", ["flowexp.report", *arguments])
        return report.main()

    return run


@pytest.mark.slow
def test_a_run_gets_its_page_and_the_command_says_where(command, capsys: pytest.CaptureFixture[str]):
    assert command("run=early") == 0
    assert capsys.readouterr().out == "early/report.html\n"
    assert "early" in Path("early/report.html").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("output", ["pages/mine.html", "pages"])
def test_the_page_goes_where_it_is_asked_for(command, output: str):
    Path("pages").mkdir()
    assert command("run=early", f"output={output}") == 0
    assert [path.suffix for path in Path("pages").iterdir()] == [".html"]


@pytest.mark.slow
def test_several_runs_get_a_page_in_the_current_folder(command):
    Path("late").mkdir()
    Path("late/config.yaml").write_text("name: late\n")
    assert command("runs=[early,late]") == 0
    assert "2 runs side by side" in Path("report.html").read_text()


@pytest.mark.slow
def test_a_runs_page_leads_to_those_of_its_diagnoses(command):
    Path("early/diagnoses/first").mkdir(parents=True)
    Path("early/diagnoses/first/report.html").write_text("")
    assert command("run=early") == 0
    assert '<a href="diagnoses/first/report.html">diagnoses first</a>' in Path("early/report.html").read_text()


@pytest.mark.slow
def test_a_sweep_gets_its_page_and_one_for_each_job(command):
    Path("sweep/0").mkdir(parents=True)
    Path("sweep/0/config.yaml").write_text(EMPTY)
    rows = [
        JobRow("0", "finished", True, {"seed": "1"}, {}, {}),
        JobRow("1", "failed (2)", False, {"seed": "2"}, {}, {}),
    ]
    JobTable(tuple(rows)).write(Path("sweep"))
    assert command("run=sweep") == 0
    assert Path("sweep/report.html").exists() and Path("sweep/0/report.html").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments, complaint",
    [
        (["run=nowhere"], "there is no folder nowhere"),
        (["run=."], "no run folder"),
        (["run=early", "runs=[early]"], "got run and runs"),
        (["pictures=3"], "got neither"),
        (["run=early", "pictures=0"], "pictures must be at least 1"),
        (["rum=early"], "did you mean run?"),
        (["runs=[early,early]"], "same folder twice"),
        (["wandb=flowexp"], "ENTITY/PROJECT"),
    ],
)
def test_a_mistake_is_answered_by_one_sentence(command, capsys, arguments: list[str], complaint: str):
    assert command(*arguments) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("error: ") and complaint in printed and printed.count("\n") == 1


def test_help_is_quick():
    script = (
        "import sys; sys.argv[1:] = ['--help']; from flowexp.report import main; main(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "runs=[A,B]" in out and out.endswith("False\n")
