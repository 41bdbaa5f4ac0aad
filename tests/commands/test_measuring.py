"""The measuring at the end of training: stopped, failed and started again, it loses and repeats nothing."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

Train = Callable[..., Any]


@pytest.fixture
def train(in_process, tiny, workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Train:
    """Trains two steps in `run` with monitors of measured.py; returns the exit code and what they measured."""
    monkeypatch.chdir(workdir)

    def run(*names: str, others: tuple[str, ...] = ()) -> tuple[int, list[str]]:
        notes = workdir / "measured.txt"
        notes.unlink(missing_ok=True)
        entries = [f"+callbacks.{name.lower()}._target_=measured.{name}" for name in names]
        folders = [f"+callbacks.{name.lower()}.folder={workdir}" for name in names]
        code = in_process("train", *tiny, "trainer.max_steps=2", *entries, *folders, "run_dir=run", *others)
        return code, notes.read_text().split("\n")[:-1] if notes.exists() else []

    return run


def summary(workdir: Path) -> dict[str, float]:
    return json.loads((workdir / "run/summary.json").read_text())["scalars"]


def test_one_monitor_that_fails_costs_neither_the_others_nor_the_summary(train: Train, workdir: Path, capsys):
    assert train("Good", "Broken", "Late") == (2, ["good 2", "late 2"])
    assert summary(workdir) == {"good/x": 1.0, "late/x": 1.0}
    said = capsys.readouterr().err
    assert "error: broken at step 2 failed: cannot read or write data: read-only file system" in said
    assert "Traceback" not in said
    (workdir / "mended").touch()
    assert train("Good", "Broken", "Late") == (0, ["broken 2"])
    assert summary(workdir) == {"good/x": 1.0, "broken/x": 1.0, "late/x": 1.0}


def test_a_signal_in_a_monitor_keeps_what_is_measured_and_the_restart_measures_the_rest(train: Train, workdir: Path):
    assert train("Good", "Stopping", "Late") == (143, ["good 2"])
    assert json.loads((workdir / "run/trained.json").read_text()) == {"step": 2}
    assert not (workdir / "run/summary.json").exists()
    (workdir / "mended").touch()
    assert train("Good", "Stopping", "Late", others=("ckpt=auto",)) == (0, ["stopping 2", "late 2"])
    assert summary(workdir) == {"good/x": 1.0, "stopping/x": 1.0, "late/x": 1.0}
    assert train("Good", "Stopping", "Late", others=("ckpt=auto",)) == (0, [])
    assert summary(workdir) == {"good/x": 1.0, "stopping/x": 1.0, "late/x": 1.0}


def test_other_settings_are_measured_again_and_others_are_not(train: Train):
    train("Good", "Late")
    assert train("Good", "Late", others=("+callbacks.late.every_n_steps=100",)) == (0, ["late 2"])
    assert train("Good", "Late", others=("+callbacks.late.every_n_steps=100", "sampler.num_steps=3")) == (
        0,
        ["good 2", "late 2"],
    )


def test_a_torn_history_still_gives_a_whole_summary(train: Train, workdir: Path):
    train("Good")
    history = workdir / "run/measurements.jsonl"
    history.write_bytes(history.read_bytes()[:40])
    with pytest.warns(UserWarning, match="lines are damaged"):
        assert train("Good") == (0, ["good 2"])
    assert summary(workdir) == {"good/x": 1.0}


def test_what_killed_writers_left_is_removed_at_the_next_start(train: Train, workdir: Path):
    train()
    left = workdir / "run/measurements/.x.json.elsewhere.999999999.partial"
    left.parent.mkdir()
    left.touch()
    left_now = left.with_name(".y.json.elsewhere.7.ab12.partial")
    left_now.touch()
    os.utime(left, (0, 0))
    assert train()[0] == 0
    assert not left.exists() and left_now.exists()
