"""`python -m flowexp.jobs COMMAND FOLDER`: runs the job whose resolved config lies in FOLDER. `flowexp.launch` starts it."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from pathlib import Path

from flowexp.errors import sentence_for
from flowexp.launch import config_folder
from flowexp.runs import RunFolder


def main() -> int:
    """Runs one job. Bad input ends in a sentence; whatever ends a job early is also written to its `log.txt`."""
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
