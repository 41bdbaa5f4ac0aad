"""`python -m flowexp.jobs COMMAND FOLDER`: runs the job whose config lies in FOLDER. `flowexp.launch` starts it."""

from __future__ import annotations

import importlib
import logging
import os
import sys
import traceback
import warnings
from pathlib import Path

from flowexp.errors import sentence_for
from flowexp.launch import config_folder
from flowexp.runs import RunFolder

_SAID_IN_EVERY_RUN = (
    "GPU available",
    "TPU available",
    "HPU available",
    "💡",
    "Using bfloat16",
    "`Trainer.fit` stopped",
    "`weights_only`",
)


def main() -> int:
    """Runs one job. Bad input ends in a sentence; whatever ends a job early is also written to its `log.txt`."""
    _quiet()
    command, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    try:
        importlib.import_module(f"flowexp.{command}").run(run.config(), run)
    except Exception as error:
        (run.path / f"log{_rank_suffix()}.txt").open("a").write(traceback.format_exc())
        sentence = _sentence(error, command)
        if sentence is None:
            raise
        print(f"error: {sentence}\n(the trace is in {run.path / 'log.txt'})", file=sys.stderr)
        return 2
    return 0


def _quiet() -> None:
    """Leaves out what Lightning says in every run and nobody can act on."""
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # FSDP; nothing is changed in place here
    for name in ("pytorch_lightning.utilities.rank_zero", "lightning_fabric.utilities.rank_zero"):
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(_SAID_IN_EVERY_RUN))


def _sentence(error: Exception, command: str) -> str | None:
    from flowexp.checkpoints import CheckpointError
    from flowexp.modules import NonFiniteGradientError

    if isinstance(error, NonFiniteGradientError | CheckpointError):
        return str(error)
    return sentence_for(error, config_folder(), command)


def _rank_suffix() -> str:
    rank = int(os.environ.get("LOCAL_RANK", 0))
    return f"_rank{rank}" if rank else ""


if __name__ == "__main__":
    sys.exit(main())
