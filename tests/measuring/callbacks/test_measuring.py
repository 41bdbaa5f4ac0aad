"""Measuring is stopped and gone on with like training, and one monitor that fails costs only itself."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from flowexp.cli.errors import sentence_for
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.monitor_runs import MeasuringError, measure_now, tell_failures
from flowexp.records.recording import Measurement, Recorder, read_history
from flowexp.training import signals
from flowexp.training.checkpoints import (
    AtomicCheckpointIO,
    StepCheckpoint,
    latest_checkpoint,
    list_checkpoints,
    step_of,
)

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning")


class Fake(Monitor):
    """Measures nothing, and before that does what a test wants."""

    def __init__(self, name: str, does: Any = None, settings: str | None = "same", **when: Any) -> None:
        super().__init__(**when)
        self.name, self.does, self.settings = name, does, None if settings is None else f"{name}-{settings}"
        self.steps: list[int] = []

    def measure(self, module: Any, datamodule: Any, seed: int) -> Measurement:
        if self.does is not None:
            self.does()
        self.steps.append(self.step)
        return Measurement(self.name, {f"{self.name}/x": 1.0 + self.step}, verdicts=["well"])


class First(Fake):
    pass


class Second(Fake):
    pass


class Third(Fake):
    pass


def three(does: Any = None) -> list[Fake]:
    return [First("first"), Second("second", does), Third("third")]


def fails() -> None:
    raise OSError(30, "Read-only file system", "data")


def raises(error: Exception) -> Any:
    def do() -> None:
        raise error

    return do


def kill(number: signal.Signals = signal.SIGTERM) -> Any:
    return lambda: os.kill(os.getpid(), number)


# --- a monitor that fails --------------------------------------------------------------------------------------------


def test_a_failing_monitor_costs_no_other_and_is_told_at_the_end(module, datamodule, tmp_path: Path):
    monitors = three(fails)
    measured = measure_now(monitors, module, datamodule, Recorder(tmp_path), 5)
    assert list(measured) == ["first", "third"] == [entry["name"] for entry in read_history(tmp_path)]
    with pytest.raises(MeasuringError) as told:
        tell_failures(monitors)
    assert sentence_for(told.value, "train") == (
        "second at step 5 failed: cannot read or write data: read-only file system"
    )
    assert isinstance(told.value.__cause__, OSError)


@pytest.mark.parametrize(
    "error",
    [ValueError("v"), KeyError("k"), RuntimeError("r"), AssertionError(), MemoryError(), torch.OutOfMemoryError()],
)
def test_whatever_fails_becomes_a_sentence(module, datamodule, tmp_path: Path, error: Exception):
    monitors = three(raises(error))
    assert list(measure_now(monitors, module, datamodule, None, 5)) == ["first", "third"]
    with pytest.raises(MeasuringError) as told:
        tell_failures(monitors)
    assert (sentence_for(told.value, "train") or "").startswith("second at step 5 failed: ")


def test_all_that_fail_are_told(module, datamodule):
    monitors = [First("first", fails), Second("second"), Third("third", raises(ValueError("too few")))]
    measure_now(monitors, module, datamodule, None, 5)
    with pytest.raises(MeasuringError) as told:
        tell_failures(monitors)
    sentence = sentence_for(told.value, "train") or ""
    assert "first at step 5 failed: cannot read" in sentence and "third at step 5 failed: too few" in sentence


def test_one_that_failed_is_not_tried_again_at_the_same_step(module, datamodule):
    monitors = three(fails)
    for _ in range(2):
        assert list(measure_now(monitors, module, datamodule, None, 5)) == ["first", "third"]
    assert len(monitors[1].failures) == 1 and monitors[0].steps == [5]


# --- what is recorded ------------------------------------------------------------------------------------------------


def test_what_is_recorded_of_these_weights_and_settings_is_taken(module, datamodule, tmp_path: Path):
    first = measure_now(three(), module, datamodule, Recorder(tmp_path), 5)
    again = three()
    found = measure_now(again, module, datamodule, Recorder(tmp_path), 5)
    assert [monitor.steps for monitor in again] == [[], [], []]
    assert [(m.name, m.scalars, m.verdicts) for m in found.values()] == [
        (m.name, m.scalars, m.verdicts) for m in first.values()
    ]
    assert len(read_history(tmp_path)) == len((tmp_path / "measurements.jsonl").read_text().splitlines()) == 3


def other_weights(module: Any, folder: Path) -> dict[str, Any]:
    with torch.no_grad():
        next(module.backbone.parameters()).view(-1)[0] += 1e-3
    module.on_load_checkpoint({})  # as when weights are restored
    return {}


def no_file(module: Any, folder: Path) -> dict[str, Any]:
    (folder / "measurements/first/step_00000005.json").unlink()
    return {}


@pytest.mark.parametrize(
    "change",
    [other_weights, no_file, lambda *_: {"settings": "others"}, lambda *_: {"settings": None}, lambda *_: {"step": 6}],
    ids=["weights", "file", "settings", "unknown settings", "step"],
)
def test_anything_else_is_measured(module, datamodule, tmp_path: Path, change: Any):
    measure_now([First("first")], module, datamodule, Recorder(tmp_path), 5)
    options = {"settings": "same", "step": 5, **change(module, tmp_path)}
    again = First("first", settings=options["settings"])
    measure_now([again], module, datamodule, Recorder(tmp_path), options["step"])
    assert again.steps == [options["step"]]


# --- a signal --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("begun_by_a_terminal")
@pytest.mark.parametrize("number", signals.SIGNALS, ids=lambda number: number.name)
def test_a_signal_ends_the_monitor_under_way_and_keeps_those_before(module, datamodule, tmp_path: Path, number):
    monitors = three(kill(number))
    with signals.listening("stops"), pytest.raises(SystemExit) as stop:
        measure_now(monitors, module, datamodule, Recorder(tmp_path), 5)
    assert stop.value.code == 128 + number
    assert [monitor.steps for monitor in monitors] == [[5], [], []]
    later = three()
    assert list(measure_now(later, module, datamodule, Recorder(tmp_path), 5)) == ["first", "second", "third"]
    assert [monitor.steps for monitor in later] == [[], [5], [5]]


def test_a_signal_before_the_first_monitor_measures_nothing(module, datamodule, tmp_path: Path):
    monitors = three()
    with signals.listening("stops"), pytest.raises(SystemExit):
        kill()()
        measure_now(monitors, module, datamodule, Recorder(tmp_path), 5)
    assert [monitor.steps for monitor in monitors] == [[], [], []]
    assert not (tmp_path / "measurements.jsonl").exists()


def test_a_signal_while_a_measurement_is_written_waits_until_it_is_there(module, datamodule, tmp_path: Path):
    class Slow(Recorder):
        def _write_table(self, *arguments: Any) -> None:
            kill()()
            super()._write_table(*arguments)

    monitors = three()
    with signals.listening("stops"), pytest.raises(SystemExit):
        measure_now(monitors, module, datamodule, Slow(tmp_path), 5)
    assert [entry["name"] for entry in read_history(tmp_path)] == ["first"]
    assert (tmp_path / "measurements/first/step_00000005.json").exists()


# --- in a Trainer ----------------------------------------------------------------------------------------------------


def fit(folder: Path, module: Any, datamodule: Any, *monitors: Monitor, max_steps: int = 6) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=max_steps, accelerator="cpu", devices=1, logger=False, plugins=[AtomicCheckpointIO()],
        default_root_dir=folder, callbacks=[*monitors, StepCheckpoint(folder / "checkpoints", 100)],
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(module, datamodule=datamodule, ckpt_path=latest_checkpoint(folder / "checkpoints"))
    return trainer


def weights_of(module: Any) -> torch.Tensor:
    return torch.cat([parameter.detach().flatten() for parameter in module.backbone.parameters()])


def test_a_measurement_that_a_signal_cut_off_is_made_where_the_run_goes_on(tmp_path, module, datamodule):
    with pytest.raises(SystemExit) as stop:
        fit(tmp_path, module, datamodule, First("first", every_n_steps=2), Second("second", kill(), every_n_steps=4))
    assert stop.value.code == 143
    assert [step_of(path) for path in list_checkpoints(tmp_path / "checkpoints")] == [4]
    raw = weights_of(module)
    seen: list[torch.Tensor] = []
    second = Second("second", lambda: seen.append(weights_of(module)), every_n_steps=4)
    first = First("first", every_n_steps=2)
    with module.averaged():
        expected = weights_of(module)
    fit(tmp_path, module, datamodule, first, second)
    assert (first.steps, second.steps) == ([6], [4, 6])
    assert torch.equal(seen[0], expected) and not torch.equal(expected, raw)
    assert [entry["step"] for entry in read_history(tmp_path) if entry["name"] == "first"] == [2, 4, 6]


def test_a_monitor_that_fails_on_the_way_does_not_end_the_training(tmp_path, module, datamodule):
    first, second = First("first", fails, every_n_steps=2), Second("second", every_n_steps=2)
    with pytest.raises(MeasuringError) as told:
        fit(tmp_path, module, datamodule, first, second)
    assert len(told.value.failures) == 3 and second.steps == [2, 4, 6]
    assert [step_of(path) for path in list_checkpoints(tmp_path / "checkpoints")] == [6]


def test_a_signal_at_the_end_is_answered_before_the_first_monitor(tmp_path, module, datamodule):
    class LastSave(pl.Callback):
        def on_train_end(self, *_: Any) -> None:
            kill()()

    first = First("first")
    trainer = pl.Trainer(
        max_steps=2, accelerator="cpu", devices=1, logger=False, enable_progress_bar=False, enable_model_summary=False,
        callbacks=[LastSave(), first, StepCheckpoint(tmp_path / "checkpoints", 100)], default_root_dir=tmp_path,
    )  # fmt: skip
    with pytest.raises(SystemExit):
        trainer.fit(module, datamodule=datamodule)
    assert first.steps == [] and not (tmp_path / "measurements.jsonl").exists()


def test_the_record_says_what_was_measured_and_how(module, datamodule, tmp_path: Path):
    measure_now([First("first")], module, datamodule, Recorder(tmp_path), 5)
    entry = json.loads((tmp_path / "measurements.jsonl").read_text())
    assert (entry["weights"], entry["settings"]) == (module.fingerprint(), "first-same")
