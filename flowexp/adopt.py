"""`python -m flowexp.adopt file=SiT-XL-2-256x256.pt +experiment=NAME`: makes a run of published weights.

The run's folder is like that of a training, so that `evaluate`, `diagnose`, `sample` and `report` take it by `run=`.
"""

from __future__ import annotations

import shlex
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.records.run_folder import RunFolder

NAMES = {"sit": "SiT's convention (time runs from noise to data)", "repa": "REPA's convention"}


def run(config: DictConfig, folder: RunFolder) -> None:
    """Converts `config.file` and writes it as the checkpoint of step `config.step` of a finished run."""
    from pathlib import Path

    from flowexp.cli.assembly import building
    from flowexp.integrations.sit_checkpoints import check_training, convention_of, convert, read_official
    from flowexp.records.files import atomic
    from flowexp.records.origin import describe_origin
    from flowexp.training.checkpoints import AtomicCheckpointIO, path_of

    path = Path(config.file).expanduser()
    official = read_official(path)
    convention = convention_of(official, config.convention)
    prediction = building.build(config.parameterization).prediction
    check_training(official, building.build(config.interpolant).name, prediction)
    backbone = building.build_backbone(config, building.build(config.data))
    backbone.load_state_dict(convert(official.weights, backbone, convention, prediction))
    folder.begin(config)
    state = {f"backbone.{name}": value for name, value in backbone.state_dict().items()}
    checkpoint = path_of(folder.checkpoints, config.step)
    AtomicCheckpointIO().save_checkpoint({"state_dict": state, "global_step": config.step}, checkpoint)
    adopted = {"file": path.name, "sha256": official.fingerprint, "convention": convention}
    atomic.write_json(folder.origin_file, describe_origin(config) | {"adopted": adopted, "plan": {}})
    atomic.write_json(folder.trained_file, {"step": config.step})
    run = shlex.quote(f"run={folder.path}")
    print(f"the run of {path.name}, by {NAMES[convention]}: {folder.path}\npython -m flowexp.evaluate {run}")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("adopt", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
