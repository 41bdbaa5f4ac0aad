"""A new idea is one file outside the package: those of docs/new_idea run through the public commands."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from flowexp.training.checkpoints import load_checkpoint

ROOT = Path(__file__).resolve().parents[1]
IDEAS = ROOT / "docs/new_idea"
SHORT = (
    "data.batch_size=16", "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "callbacks=none", "sampler.num_steps=2", "progress_bar=false", "log_every_n_steps=1",
)  # fmt: skip
pytestmark = pytest.mark.xdist_group("new_idea")  # one run for all


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def command(warm_python: str) -> Command:
    """`python -m flowexp.NAME ...`, started in `folder`."""

    def run(name: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        whole = [warm_python, "-m", f"flowexp.{name}", *arguments]
        return subprocess.run(whole, cwd=folder, env=environment, capture_output=True, text=True, timeout=300)

    return run


def succeeded(finished: subprocess.CompletedProcess[str]) -> str:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, command: Command) -> Path:
    """A training in which objective, network, term, data, monitor and solver are all from outside; its folder."""
    folder = tmp_path_factory.mktemp("ideas") / "mine"
    shutil.copytree(IDEAS, folder)
    chosen = ("objective=huber", "objective.c=0.2", "backbone=convolutions", "backbone.width=8", "data=rings")
    further = ("terms=energy", "sampler.solver={_target_:ralston.Ralston}")
    training = ("optimizer=lion", "lr_schedule=trapezoid", "lr_schedule.share=0.5", "logger=lines")
    monitor = ("+callbacks.brightness._target_=brightness.Brightness", "+callbacks.brightness.num_samples=4")
    succeeded(
        command(
            "train",
            "parts=mine",
            *chosen,
            *further,
            *training,
            *monitor,
            *SHORT,
            "run_dir=mine/run",
            folder=folder.parent,
        )
    )
    return folder / "run"


@pytest.mark.slow
def test_every_part_of_a_run_can_come_from_outside(run: Path):
    config, plan = OmegaConf.load(run / "config.yaml"), json.loads((run / "run.json").read_text())["plan"]
    assert config.objective == {"_target_": "huber.PseudoHuberFlow", "c": 0.2}
    assert (plan["objective"], plan["term energy"]) == ("PseudoHuberFlow", "Energy, weight 0.01")
    assert plan["backbone"].startswith("Convolutions, ")
    assert json.loads((run / "trained.json").read_text()) == {"step": 2}


@pytest.mark.slow
def test_a_monitor_from_outside_is_measured_and_logged(run: Path):
    scalars = json.loads((run / "summary.json").read_text())["scalars"]
    assert 0 < scalars["brightness/real"] < 255
    assert "brightness/samples" in scalars
    (metrics,) = run.glob("csv/version_*/metrics.csv")
    assert {"train/velocity", "train/energy", "brightness/samples"} <= {*metrics.read_text().split("\n")[0].split(",")}


@pytest.mark.slow
def test_optimizer_schedule_and_logger_from_outside_train_and_write(run: Path):
    content = load_checkpoint(run / "checkpoints/step_00000002.ckpt")
    (state,) = content["optimizer_states"]
    assert {key for entry in state["state"].values() for key in entry} == {"momentum"}
    assert (state["param_groups"][0]["initial_lr"], state["param_groups"][0]["lr"]) == (1e-4, 0)
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2] and "train/energy" in lines[0]


@pytest.mark.slow
def test_a_run_of_ones_own_is_sampled_where_the_command_line_names_the_folder(run: Path, command: Command):
    said = ("sample", f"run={run}", "num_samples=4", "device=cpu")
    refused = command(*said, folder=run.parent)  # the files lie here, and nobody says that they may be run
    assert refused.returncode == 2 and "would call ralston.Ralston" in refused.stderr, refused.stderr
    succeeded(command(*said, "parts=mine", folder=run.parent.parent))
    protocol = next(run.rglob("samples/**/summary.json"))
    assert json.loads(protocol.read_text())["protocol"]["nfe"] == 4  # Ralston's two calls in each of two steps


@pytest.mark.slow
def test_a_figure_from_outside_is_found_in_the_current_folder_and_drawn(run: Path, command: Command):
    said = succeeded(command("reproduce", "velocity_norms", "budget=smoke", folder=run.parent))
    assert "32 wide" in said and "64 wide" in said
    results = run.parent / "results/velocity_norms/smoke"
    assert {path.name for path in results.iterdir()} == {
        "norms.csv", "norms.png", "table.md", "protocol.json", "made.json", "report.html",
    }  # fmt: skip


@pytest.mark.slow
def test_a_file_that_is_not_found_is_named_in_a_sentence(in_process, capsys):
    assert in_process("train", "objective._target_=no_such_file.Mine", *SHORT) == 2
    said = capsys.readouterr().err
    assert "No module named 'no_such_file'" in said
    assert "in the folder where the command is started, on PYTHONPATH, or in the folder that parts names" in said
