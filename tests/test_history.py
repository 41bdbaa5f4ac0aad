"""A damaged line of the history costs only itself, and every record has reached the disk."""

from __future__ import annotations

import os
import warnings
from pathlib import Path

import pytest

from flowexp.records.recording import Measurement, Recorder, read_history


def record(folder: Path, *steps: int) -> None:
    for step in steps:
        Recorder(folder).record(Measurement("m", {"m/x": float(step)}), step)


def steps_of(folder: Path) -> list[int]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return [entry["step"] for entry in read_history(folder)]


@pytest.mark.parametrize("length", [1, 20, -2, -1], ids=["one byte", "twenty", "all but two", "without its newline"])
def test_the_record_after_a_torn_line_is_not_lost(tmp_path: Path, length: int):
    record(tmp_path, 10, 20)
    history = tmp_path / "measurements.jsonl"
    first, second = history.read_bytes().splitlines(keepends=True)
    history.write_bytes(first + second[:length])
    record(tmp_path, 30)
    assert steps_of(tmp_path) == ([10, 20, 30] if length == -1 else [10, 30])


@pytest.mark.parametrize(
    "line",
    [b"[]", b"3", b"null", b"{}", b'{"name": "m", "step": "x", "scalars": {}}', b"\xff\xfe\x00", b"[" * 9999, b"{"],
)
def test_a_line_that_is_no_measurement_is_passed_over_and_named(tmp_path: Path, line: bytes):
    record(tmp_path, 10)
    with (tmp_path / "measurements.jsonl").open("ab") as file:
        file.write(line + b"\n")
    record(tmp_path, 20)
    with pytest.warns(UserWarning, match=r"measurements.jsonl: 1 of 3 lines are damaged"):
        assert [entry["step"] for entry in read_history(tmp_path)] == [10, 20]


def test_a_record_reaches_the_disk_before_the_next_thing_is_done(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    synced: list[str] = []
    sync = os.fsync

    def note(descriptor: int) -> None:
        synced.append(Path(os.readlink(f"/proc/self/fd/{descriptor}")).name)
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", note)
    record(tmp_path, 10)
    assert "measurements.jsonl" in synced and any(".step_00000010.json." in name for name in synced)
