"""`python -m flowexp.diagnose run=FOLDER`: curves over the noise level, a verdict in plain words, and one page.

`python -m flowexp.diagnose ssc run=FOLDER` calibrates SSC for the run and measures the controls beside the proposal.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.runs import RunFolder

_KEYS = {  # a monitor's name in measurements, and the argument of `verdict` that takes its curve
    "probe": "probe",
    "velocity_norms": "norms",
    "condition_number": "condition",
    "gradient_share": "gradient",
    "jacobian": "jacobian",
    "integration_lag": "lag",
}


def run(config: DictConfig, folder: RunFolder) -> None:
    """Measures `config.run` with the diagnostics of `config.callbacks`; writes curves, verdicts and report.html."""
    from pathlib import Path

    from flowexp import building
    from flowexp.callbacks.monitor import Monitor, measure_now
    from flowexp.diagnostics import verdict
    from flowexp.recording import Recorder
    from flowexp.summary import summarise

    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = building.load_run(Path(config.run), checkpoint)
    module.sampler = building.build(config.sampler)
    module.to(building.resolve_device(config.device))
    recorder = Recorder(folder.path, building.build_loggers(config, folder))
    monitors = [m for m in building.build_monitors(config) if isinstance(m, Monitor)]
    measured = measure_now(monitors, module, datamodule, recorder, step)
    for logger in recorder.loggers:
        logger.finalize("success")
    verdicts = verdict(**_curves(monitors))
    numbers = {name: (m.scalars, m.protocol) for name, m in measured.items()}
    summarise(folder, numbers, run=config.run, step=step, verdicts=verdicts)
    for sentence in verdicts:
        print(f"* {sentence}")
    _write_page(folder)


def _curves(monitors: list[Any]) -> dict[str, Any]:
    """What the monitors found, as `verdict` takes it."""
    from flowexp.callbacks.probe import ProbeMonitor

    found = {}
    for monitor in monitors:
        name = "probe" if isinstance(monitor, ProbeMonitor) else getattr(monitor, "name", None)
        if name in _KEYS and getattr(monitor, "found", None) is not None:
            found[_KEYS[name]] = monitor.found
    return found


def _write_page(folder: RunFolder) -> None:
    from flowexp.report import write_report

    print(f"the page: {write_report([folder.path])}")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.launch import open_door

    calibrates = sys.argv[1:2] == ["ssc"]
    arguments = ["callbacks=ssc_calibration", *sys.argv[2:]] if calibrates else sys.argv[1:]
    return open_door("diagnose", arguments)


if __name__ == "__main__":
    sys.exit(main())
