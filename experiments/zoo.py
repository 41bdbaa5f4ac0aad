"""The maker of the zoo: `python -m experiments.zoo RUN NAME` adds the EMA network of a finished run to it.

The folder is an export, with the run's config and origin beside it and nothing of the machine that trained it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from omegaconf import OmegaConf

from flowexp.records import zoo
from flowexp.records.files import atomic
from flowexp.records.run_folder import RunFolder

OF_A_MACHINE = {"output_root": "outputs", "ckpt": None, "progress_bar": True}  # keys that this training alone set


def pack(run: RunFolder, name: str) -> Path:
    """Writes the network of `run` as `zoo:NAME`. Returns its folder."""
    to = zoo.folder() / name
    export = [sys.executable, "-m", "flowexp.export", f"run={run.path}", f"to={to}", "num_samples=0", "license=mit"]
    subprocess.run(export, check=True)
    config, origin = run.trained_config(), run.origin()
    config.update({**OF_A_MACHINE, "run_dir": f"outputs/zoo/{name}"})
    origin["command"] = " ".join(word for word in origin["command"].split() if not word.startswith(_PLACES))
    atomic.write_text(to / zoo.CONFIG, OmegaConf.to_yaml(config))
    atomic.write_json(to / zoo.ORIGIN, origin)
    return to


_PLACES = ("run_dir=", "output_root=", "progress_bar=", "ckpt=")

if __name__ == "__main__":
    print(pack(RunFolder(Path(sys.argv[1])), sys.argv[2]))
