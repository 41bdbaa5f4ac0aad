"""`python -m flowexp.evaluate run=FOLDER [key=value ...]`: measures a run's checkpoint, by any sampler and monitor.

`checkpoint=FILE` alone takes the run that the file lies in; `devices=2` shares the samples out over two processes.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.measuring.callbacks.monitor import Monitor
    from flowexp.records.recording import Measurement
    from flowexp.records.run_folder import RunFolder


def run(config: DictConfig, folder: RunFolder) -> None:
    """Measures `config.run` with the monitors of `config.callbacks` and writes the results into `folder`."""
    from flowexp.cli.assembly import building, hardware, rebuilding
    from flowexp.cli.assembly.autoguidance import guided_by
    from flowexp.measuring.callbacks.monitor import Monitor
    from flowexp.measuring.callbacks.monitor_runs import tell_failures

    if config.seed is not None and not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, or be null for the run's own; got {config.seed}")
    device, is_first = hardware.device_of_processes(config.device, config.devices)
    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = rebuilding.load_run(Path(config.run), checkpoint)
    module.choose_weights(config.ema)
    module.sampler = building.build(config.sampler)
    module.seed = module.seed if config.seed is None else config.seed
    module.to(device)
    monitors = [m for m in building.build_monitors(config) if isinstance(m, Monitor)]
    with guided_by(module, config.guide, config.guide_checkpoint) as guide:
        folder.begin(config, is_first=is_first)
        measured = _measure(config, folder if is_first else None, monitors, module, datamodule, step)
    if is_first:
        _finish(config, folder, measured, step, guide)
    tell_failures(monitors)


def _measure(
    config: DictConfig, folder: RunFolder | None, monitors: list[Monitor], module: Any, datamodule: Any, step: int
) -> dict[str, Measurement]:
    """The measurements of the monitors. `folder` is None on every process but the first."""
    from flowexp.cli.assembly import building
    from flowexp.measuring.callbacks.monitor_runs import measure_now
    from flowexp.records.recording import Recorder

    recorder = None if folder is None else Recorder(folder.path, building.build_loggers(config, folder))
    measured = measure_now(monitors, module, datamodule, recorder, step)
    for logger in () if recorder is None else recorder.loggers:
        logger.finalize("success")
    return measured


def _finish(
    config: DictConfig, folder: RunFolder, measured: dict[str, Measurement], step: int, guide: dict[str, Any] | None
) -> None:
    """Writes and prints the numbers; warns where the run has numbers of other cards under the same names."""
    from flowexp.cli.summary import summarise
    from flowexp.records.protocol_card import keeps_apart
    from flowexp.records.search import summaries_of

    numbers = {name: (m.scalars, m.protocol) for name, m in measured.items()}
    summarise(folder, numbers, run=config.run, step=step, guide=guide)
    sweeps = (parent for parent in folder.path.parents if parent.name.startswith("sweep_"))
    own = next(sweeps, folder.path)  # the table of a sweep warns itself
    earlier = summaries_of(Path(config.run), leaving_out=own)
    for sentence in keeps_apart({"this one": folder.summary(), **earlier}, only_with="this one"):
        print(f"warning: {sentence}", file=sys.stderr)


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("evaluate", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
