"""What is being measured is said while it is, on the process that records."""

from __future__ import annotations

from pathlib import Path

import pytest

from flowexp.measuring.callbacks.diagnostics_along_t import CrossTerms, VelocityNorms
from flowexp.measuring.callbacks.monitor_runs import measure_now, screen_name
from flowexp.measuring.callbacks.noise_levels import NoiseLevelMonitor
from flowexp.records.recording import Recorder


def test_monitors_have_names_that_can_be_read():
    monitors = [VelocityNorms(), NoiseLevelMonitor(), CrossTerms()]
    assert [screen_name(monitor) for monitor in monitors] == ["velocity norms", "noise level", "cross terms"]


def test_each_measurement_is_announced_with_how_many_are_to_come(
    module, datamodule, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    monitors = [CrossTerms(num_images=4), CrossTerms(num_images=8)]
    measure_now(monitors, module, datamodule, Recorder(tmp_path), step=1)
    assert capsys.readouterr().err.splitlines() == ["measuring cross terms (1 of 2)", "measuring cross terms (2 of 2)"]
    measure_now(monitors, module, datamodule, None, step=2)
    assert capsys.readouterr().err == ""
