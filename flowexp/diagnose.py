"""`python -m flowexp.diagnose run=FOLDER`: curves over the noise level, a verdict in plain words, and one page.

`python -m flowexp.diagnose probe run=FOLDER data=digits` probes the network, here on another labelled dataset.
`python -m flowexp.diagnose ssc run=FOLDER` calibrates SSC for the run and measures the controls beside the proposal.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.data import ImageDataModule
    from flowexp.objectives import FlowMatching
    from flowexp.records.run_folder import RunFolder

SHORTHANDS = {"probe": "callbacks=probe_only", "ssc": "callbacks=ssc_calibration"}


def run(config: DictConfig, folder: RunFolder) -> None:
    """Measures `config.run` with the diagnostics of `config.callbacks`; writes curves, verdicts and report.html."""
    from flowexp.cli.assembly import building, hardware
    from flowexp.cli.assembly.autoguidance import guided_by
    from flowexp.cli.summary import summarise
    from flowexp.measuring.callbacks.monitor import Monitor
    from flowexp.measuring.callbacks.monitor_runs import measure_now, tell_failures
    from flowexp.records.recording import Recorder
    from flowexp.records.verdict import Verdict

    monitors = [m for m in building.build_monitors(config) if isinstance(m, Monitor)]
    module, datamodule, step = _load(config, monitors)
    module.choose_weights(config.ema)
    module.sampler = building.build(config.sampler)
    module.to(hardware.resolve_device(config.device))
    with guided_by(module, config.guide, config.guide_checkpoint) as guide:
        folder.begin(config)
        recorder = Recorder(folder.path, building.build_loggers(config, folder))
        measured = measure_now(monitors, module, datamodule, recorder, step)
    for logger in recorder.loggers:
        logger.finalize("success")
    numbers = {name: (m.scalars, m.protocol) for name, m in measured.items()}
    verdicts = [Verdict.of(verdict) for measurement in measured.values() for verdict in measurement.verdicts]
    about = {"run": config.run, "step": step, "data": datamodule.name, "guide": guide}
    summarise(folder, numbers, **about, verdicts=[verdict.data() for verdict in verdicts])
    for verdict in verdicts:
        print(f"* {verdict}")
    _write_page(folder)
    tell_failures(monitors)


def _load(config: DictConfig, monitors: list[Any]) -> tuple[FlowMatching, ImageDataModule, int]:
    """The module of the run with its dataset, or with that of `data=`, in the shape that the network takes."""
    from flowexp.cli.assembly import building, rebuilding
    from flowexp.data.sets.resized import fitted

    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    if "data" not in config:
        return rebuilding.load_run(Path(config.run), checkpoint)
    module, own, step = rebuilding.load_run(Path(config.run), checkpoint, with_data=False)
    other = building.build_datamodule(config)
    if other.name != own.name and module.backbone.takes != "nothing":
        _check_that_labels_are_not_needed(module, own.name, other.name, monitors)
    return module, fitted(other, module.backbone.channels, module.backbone.resolution), step


def _check_that_labels_are_not_needed(module: FlowMatching, own: str, other: str, monitors: list[Any]) -> None:
    """A probe gives the network no label; other diagnostics would give it those of the other dataset."""
    from flowexp.measuring.callbacks.probe import ProbeMonitor

    if not all(isinstance(monitor, ProbeMonitor) for monitor in monitors):
        raise ValueError(
            f"this network takes a {module.backbone.takes} of {own}, which {other} has not: there it can be probed, by"
            " `python -m flowexp.diagnose probe run=... data=...`"
        )


def _write_page(folder: RunFolder) -> None:
    from flowexp.report import write_report

    print(f"the page: {write_report([folder.path])}")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    first, *rest = sys.argv[1:] or [""]
    arguments = [SHORTHANDS[first], *rest] if first in SHORTHANDS else sys.argv[1:]
    return open_door("diagnose", arguments)


if __name__ == "__main__":
    sys.exit(main())
