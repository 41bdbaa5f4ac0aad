"""Whatever stops a run, resumed it is the run left alone, bit for bit."""

from __future__ import annotations

import json

import pytest
from witnesses import digest

from flowexp.checkpoints import list_checkpoints, step_of, verify_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def poisoned(shell, lcf, alone):
    """A run from step 4 of `alone`, by its path, in which the batch after step 7 is NaN."""
    witness = ("+callbacks.poison._target_=witnesses.Poison", "+callbacks.poison.step=7", "checkpoint.every_n_steps=1")
    start = alone / "checkpoints" / "step_00000004.ckpt"
    return shell.run("train", *lcf, *witness, f"ckpt={start}", "run_dir=poisoned")


def test_a_killed_and_a_terminated_run_come_to_the_run_left_alone(interrupted, alone, trained_state, assert_identical):
    assert interrupted.killed.code == -9
    assert interrupted.finished.succeeded()
    expected, found = (list_checkpoints(folder / "checkpoints") for folder in (alone, interrupted.folder))
    assert {path.name for path in expected} <= {path.name for path in found}
    for path in expected:
        same_step = interrupted.folder / "checkpoints" / path.name
        assert_identical(trained_state(same_step), trained_state(path))


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


def test_a_saved_step_is_taken_again_and_names_what_failed(poisoned, shell):
    (saved,) = (shell.folder / "poisoned").glob("nonfinite_step_*.pt")
    assert saved.name == "nonfinite_step_00000007.pt" and str(saved) in poisoned.err
    again = shell.run("replay", str(saved)).succeeded()
    assert "the data of this step are not finite" in again.out
    assert "backbone.blocks.0" in again.out and "velocity nan" in again.out


def test_the_folder_of_another_training_is_not_gone_on_in(in_process, lcf, alone, capsys):
    before = (alone / "config.yaml").read_text()
    assert in_process("train", *lcf, "seed=5", f"run_dir={alone}") == 2
    assert "holds a run with other training settings" in capsys.readouterr().err
    assert (alone / "config.yaml").read_text() == before
