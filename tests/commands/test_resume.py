"""Whatever stops a run, resumed it is the run left alone, bit for bit."""

from __future__ import annotations

import json
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from witnesses import digest

from flowexp import replay
from flowexp.records.tables import read_csv
from flowexp.training.checkpoints import list_checkpoints, step_of, verify_checkpoint

pytestmark = pytest.mark.slow


@dataclass(frozen=True)
class Interrupted:
    """A training that was killed, damaged, terminated and finished, all in one run folder."""

    folder: Path
    killed: Any
    rows_at_the_kill: int
    damaged: Path
    terminated: Any
    saved_at_the_signal: Path
    finished: Any


@pytest.fixture(scope="module")
def interrupted(shell, lcf) -> Interrupted:
    """The training of `alone` with everything against it, and W&B beside it: offline, then with a dead server.

    1. kill -9 at a random moment; the newest checkpoint is cut in half.
    2. ckpt=auto, then SIGTERM at a random moment.
    3. ckpt=last, to the end.
    """
    slow = ("+callbacks.slow._target_=witnesses.Slow", "+callbacks.slow.seconds=0.15", "logger=wandb")
    until = "+callbacks.slow.last={}".format
    root = shell.folder / "outputs"

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(root.rglob(f"step_{step:08d}.ckpt")) and not time.sleep(random.SystemRandom().random() / 2)

    killed = shell.start("train", *lcf, *slow, until(6)).signal_when(reached(4), signal.SIGKILL)
    (checkpoints,) = root.rglob("checkpoints")
    damaged = list_checkpoints(checkpoints)[-1]
    rows = max(int(row["step"]) for row in read_csv(checkpoints.parent / "csv/version_0/metrics.csv"))
    os.truncate(damaged, damaged.stat().st_size // 2)
    next_step = int(damaged.stem.removeprefix("step_")) + 2
    again = shell.start("train", *lcf, *slow, until(10), "ckpt=auto")
    terminated = again.signal_when(reached(next_step), signal.SIGTERM)
    saved = list_checkpoints(checkpoints)[-1]
    dead_server = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    finished = shell.run("train", *lcf, "logger=wandb", "logger.wandb.connect_seconds=1", "ckpt=last", **dead_server)
    return Interrupted(checkpoints.parent, killed, rows, damaged, terminated, saved, finished)


@pytest.fixture(scope="module")
def poisoned(shell, lcf, alone):
    """A run from step 4 of `alone`, by its path, in which the batch after step 7 is NaN."""
    witness = ("+callbacks.poison._target_=witnesses.Poison", "+callbacks.poison.step=7", "checkpoint.every_n_steps=1")
    start = alone / "checkpoints" / "step_00000004.ckpt"
    return shell.here("train", *lcf, *witness, f"ckpt={start}", "run_dir=poisoned")


def test_a_killed_and_a_terminated_run_come_to_the_run_left_alone(interrupted, alone, trained_state, assert_identical):
    assert interrupted.killed.code == -9
    assert interrupted.finished.succeeded()
    expected, found = (list_checkpoints(folder / "checkpoints") for folder in (alone, interrupted.folder))
    assert {path.name for path in expected} <= {path.name for path in found}
    for path in expected:
        same_step = interrupted.folder / "checkpoints" / path.name
        assert_identical(trained_state(same_step), trained_state(path))


def test_a_killed_and_a_terminated_run_have_the_curves_of_the_run_left_alone(interrupted, alone):
    """One row for each step that is logged, from the first to the last, and no other."""
    curves = [read_csv(folder / "csv/version_0/metrics.csv") for folder in (interrupted.folder, alone)]
    losses = [[(row["step"], row["train/loss"], row["train/grad_norm"]) for row in rows] for rows in curves]
    assert losses[0] == losses[1]
    assert [step for step, *_ in losses[0]] == [1, 2, 4, 6, 8, 10, 12]
    assert [path.name for path in (interrupted.folder / "csv").iterdir()] == ["version_0"]


def test_a_killed_run_has_the_rows_up_to_its_checkpoint_on_the_disk(interrupted):
    assert interrupted.rows_at_the_kill >= step_of(interrupted.damaged)


def test_a_damaged_newest_checkpoint_is_passed_over_and_named(interrupted):
    assert interrupted.damaged.name in interrupted.terminated.err
    assert "passed over" in interrupted.terminated.err
    verify_checkpoint(interrupted.damaged)  # the resumed run wrote it anew


def test_sigterm_saves_the_step_and_exits_143(interrupted):
    assert interrupted.terminated.code == 143
    verify_checkpoint(interrupted.saved_at_the_signal)
    assert f"after step {step_of(interrupted.saved_at_the_signal)}, which is saved" in interrupted.terminated.err


def test_all_starts_share_one_folder(interrupted):
    assert len(list(interrupted.folder.parent.iterdir())) == 1


def test_wandb_without_a_key_writes_offline_and_a_resume_continues_the_run(interrupted):
    written = [path.name for path in (interrupted.folder / "wandb").glob("offline-run-*")]
    run_id = (interrupted.folder / "wandb_id.txt").read_text()
    assert len(written) == 3  # the killed start, the terminated one and the last
    assert {name.rpartition("-")[2] for name in written} == {run_id}


def test_a_wandb_server_that_does_not_answer_does_not_end_the_run(interrupted):
    finished = interrupted.finished.succeeded()
    assert "W&B did not answer" in finished.err + finished.out
    assert json.loads((interrupted.folder / "summary.json").read_text())["step"] == 12


def test_a_nan_step_stops_the_run_and_names_itself(poisoned):
    assert poisoned.code not in (0, None)
    assert "step 7: the gradient norm is nan" in poisoned.err
    assert "Traceback" not in poisoned.err


def test_a_nan_step_changes_neither_weights_nor_ema_nor_optimizer(poisoned, shell, trained_state):
    newest = list_checkpoints(shell.folder / "poisoned" / "checkpoints")[-1]
    assert step_of(newest) == 7
    in_memory = json.loads((shell.folder / "poisoned" / "in_memory.json").read_text())
    saved = trained_state(newest)
    assert in_memory == {name: digest(saved[name]) for name in in_memory}


def test_a_checkpoint_can_be_given_by_its_path(poisoned, shell, alone, trained_state, assert_identical):
    name = "step_00000006.ckpt"
    ours, theirs = (folder / "checkpoints" / name for folder in (shell.folder / "poisoned", alone))
    assert_identical(trained_state(ours), trained_state(theirs))


def test_a_saved_step_is_taken_again_and_names_what_failed(poisoned, shell, monkeypatch, capsys):
    (saved,) = (shell.folder / "poisoned").glob("nonfinite_step_*.pt")
    assert saved.name == "nonfinite_step_00000007.pt" and str(saved) in poisoned.err
    monkeypatch.setattr(sys, "argv", ["replay", str(saved)])
    assert replay.main() == 0
    again = capsys.readouterr().out
    assert "the data of this step are not finite" in again
    assert "backbone.blocks.0" in again and "velocity nan" in again


def test_the_folder_of_another_training_is_not_gone_on_in(in_process, lcf, alone, capsys):
    before = (alone / "config.yaml").read_text()
    assert in_process("train", *lcf, "seed=5", f"run_dir={alone}") == 2
    assert "holds a run with other training settings" in capsys.readouterr().err
    assert (alone / "config.yaml").read_text() == before
