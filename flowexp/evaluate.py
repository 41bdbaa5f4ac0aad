"""`python -m flowexp.evaluate run=FOLDER [key=value ...]`: measures a run's checkpoint, by any sampler and monitor."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.runs import RunFolder


def run(config: DictConfig, folder: RunFolder) -> None:
    """Measures `config.run` with the monitors of `config.callbacks` and writes the results into `folder`."""
    from pathlib import Path

    from flowexp import building
    from flowexp.callbacks.monitor import Monitor, measure_now
    from flowexp.guides import guided_by
    from flowexp.recording import Recorder
    from flowexp.summary import summarise

    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = building.load_run(Path(config.run), checkpoint)
    module.sampler = building.build(config.sampler)
    module.to(building.resolve_device(config.device))
    recorder = Recorder(folder.path, building.build_loggers(config, folder))
    monitors = [m for m in building.build_monitors(config) if isinstance(m, Monitor)]
    with guided_by(module, config.guide, config.guide_checkpoint) as guide:
        measured = measure_now(monitors, module, datamodule, recorder, step)
    for logger in recorder.loggers:
        logger.finalize("success")
    numbers = {name: (m.scalars, m.protocol) for name, m in measured.items()}
    summarise(folder, numbers, run=config.run, step=step, guide=guide)


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.launch import open_door

    return open_door("evaluate", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
