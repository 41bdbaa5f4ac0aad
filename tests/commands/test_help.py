"""What `--help` and the shell's completion tell."""

from __future__ import annotations

import re

import pytest

from flowexp import launch
from flowexp.completion import complete
from flowexp.help import help_page
from flowexp.launch import COMMANDS, config_folder


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_every_command_is_explained(command: str):
    keys = help_page(command, [], config_folder()).split("== Keys: key=value ==\n")[1].splitlines()
    silent = [line for line in keys if not re.search(r"  # \S", line)]
    assert [line.split(":")[0].strip() for line in silent] == []


@pytest.mark.parametrize(
    "overrides, lines",
    [
        (["objective=lcf"], [r"objective:  # lcf: Local Contrastive Flow", r"  T_min: 20  # of 1000"]),
        (["objective=lcf"], [r"  tau: 0.5  # temperature", r"  lam: 1.0  # lambda of eq. 15"]),
        (["objective=mafm"], [r"  lam: 0.3  # lambda, `objective.lambda=` works"]),
        (["experiment=fashion_lcf"], [r"  T_min: 100  # of 1000"]),
        (["sampler=heun", "ssc=linear"], [r"  num_steps: 25  # 49 network calls", r"  s0: 1.1  # SSC's scale"]),
        (["callbacks=jacobian"], [r"  jacobian:  # Gains of", r"    levels: \[0.005,.*\]  # t, or"]),
        (["terms=[repa,dispersive]"], [r"    lam: 0.5  # weight; as in REPA"]),
        (["seed=3"], [r"seed: 3  # names every random draw", r"ckpt: null  # auto: continue"]),
    ],
)  # fmt: skip
def test_help_shows_the_chosen_values_and_what_their_yaml_says(overrides: list[str], lines: list[str]):
    page = help_page("train", overrides, config_folder())
    for line in lines:
        assert re.search(f"^{line}", page, re.MULTILINE), f"{line} is not in {page}"


def completed(line: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[str]:
    monkeypatch.setenv("COMP_LINE", line)
    monkeypatch.setattr("sys.argv", ["flowexp"])
    assert complete(["-sc", "query=bash"], COMMANDS, launch.open_door) == 0
    return capsys.readouterr().out.split()


@pytest.mark.parametrize(
    "line, offered",
    [
        ("flowexp tr", "train"),
        ("flowexp train objec", "objective="),
        ("flowexp train objective=l", "objective=lcf"),
        ("flowexp train objective=lcf objective.T", "objective.T_min="),
        ("flowexp evaluate sampler=h", "sampler=heun"),
    ],
)
def test_the_shell_completes_commands_groups_names_and_keys(line: str, offered: str, monkeypatch, capsys):
    assert offered in completed(line, monkeypatch, capsys)


def test_the_shells_script_completes_the_console_script(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["flowexp", "-sc", "install=bash"])
    assert launch.main() == 0
    script = capsys.readouterr().out
    assert script.rstrip().endswith("-F hydra_bash_completion flowexp")
