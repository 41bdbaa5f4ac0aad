"""What `--help` and the shell's completion tell."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from flowexp.cli import launch
from flowexp.cli.completion import complete
from flowexp.cli.composing import Configs
from flowexp.cli.help import help_page
from flowexp.cli.launch import COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
def test_every_key_of_every_command_is_explained(command: str):
    keys = help_page(command).split("== Keys: key=value ==\n")[1].splitlines()
    silent = [line for line in keys if not re.search(r"  # \S", line)]
    assert [line.split(":")[0].strip() for line in silent] == []


@pytest.mark.parametrize(
    "overrides, lines",
    [
        (["objective=lcf"], [r"objective:  # lcf: Local Contrastive Flow", r"  T_min: 20  # of 1000"]),
        (["objective=lcf"], [r"  tau: 0.5  # temperature", r"  lam: 1.0  # lambda of eq. 15"]),
        (["objective=mafm"], [r"  lam: 0.2  # lambda, `objective.lambda=` works"]),
        (["experiment=fashion_lcf"], [r"  T_min: 100  # of 1000"]),
        (["sampler=heun", "ssc=linear"], [r"  num_steps: 25  # 49 network calls", r"  s0: 1.1  # SSC's scale"]),
        (["callbacks=jacobian"], [r"  jacobian:  # Gains of", r"    levels: \[0.005,.*\]  # t in"]),
        (["terms=[repa,dispersive]"], [r"    lam: 0.5  # weight; as in REPA"]),
        (["optimizer=sit"], [r"optimizer:  # sit: AdamW as in SiT", r"  weight_decay: 0.0  # SiT", r"  warmup: false"]),
        (["optimizer=muon", "lr_schedule=cosine"], [r"  ns_steps: 5  # steps of", r"  final_share: 0.0  # learn"]),
        (["logger=[wandb,mlflow]"], [r"    project: flowexp", r"    run_id: null  # goes on"]),
        (["seed=3"], [r"seed: 3  # names every random draw", r"ckpt: null  # auto: continue"]),
    ],
)  # fmt: skip
def test_help_shows_the_chosen_values_and_what_their_yaml_says(overrides: list[str], lines: list[str]):
    page = help_page("train", overrides)
    for line in lines:
        assert re.search(f"^{line}", page, re.MULTILINE), f"{line} is not in {page}"


OWN = Path(__file__).parents[2] / "docs/new_idea/conf"


@pytest.mark.parametrize("given", [[f"--config-dir={OWN}"], ["--config-dir", str(OWN)], ["-cd", str(OWN)]])
@pytest.mark.parametrize(
    "line",
    [
        r"objective: exfm, fm, fm_contrast, huber, lcf",
        r"objective:  # huber: Flow matching with a pseudo-Huber error",
        r"  c: 0\.1  # errors far above",
        r"    lam: 0\.01  # weight",
    ],
)
def test_a_folder_of_ones_own_is_seen_wherever_it_is_named(given: list[str], line: str, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [])
    assert launch.open_door("train", ["objective=huber", *given, "terms=energy", "--help"]) == 0
    assert re.search(f"^{line}", capsys.readouterr().out, re.MULTILINE)


def test_comments_of_a_yaml_are_those_of_its_keys_however_deep_it_is_indented(tmp_path: Path):
    (tmp_path / "data").mkdir()
    lines = ["name: x # of data", "crop:", "    size: 8 # wide", "    pad: 1 # round", "last: 1 # the end"]
    (tmp_path / "data/mine.yaml").write_text("\n".join(lines))
    page = help_page("train", ["data=mine"], Configs((tmp_path,)))
    for line in (r"  name: x  # of data", r"    size: 8  # wide", r"    pad: 1  # round", r"  last: 1  # the end"):
        assert re.search(f"^{line}", page, re.MULTILINE), f"{line} is not in {page}"


def test_a_yaml_of_ones_own_that_builds_on_one_of_conf_has_its_comments(tmp_path: Path):
    (tmp_path / "objective").mkdir()
    (tmp_path / "objective/mine.yaml").write_text("defaults:\n  - lcf\n  - _self_\nT_min: 30\n")
    page = help_page("train", ["objective=mine"], Configs((tmp_path,)))
    for line in (r"objective:  # mine$", r"  T_min: 30  # of 1000", r"  tau: 0\.5  # temperature"):
        assert re.search(f"^{line}", page, re.MULTILINE), f"{line} is not in {page}"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--config-dir=nowhere", "--help"], "--config-dir=nowhere is no folder: give one that has yamls"),
        (["-cd", "nowhere", "seed=1"], "--config-dir=nowhere is no folder"),
        (["-cd", str(OWN), "objective=hubber"], "did you mean huber?"),
        (["-cd", str(OWN), "objective=huber", "objective.cc=1"], "did you mean c? objective has c."),
    ],
)
def test_what_is_wrong_beside_a_folder_of_ones_own_is_said_in_its_words(arguments, words, capsys, monkeypatch):
    monkeypatch.setattr("sys.argv", [])
    assert launch.open_door("train", arguments) == 2
    assert words in capsys.readouterr().err


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
