"""How long a command takes before its own work begins."""

from __future__ import annotations

import os
import subprocess
import sys

from benchmarks.sizes import Size
from benchmarks.table import Promise, Result, compare
from benchmarks.timing import Comparison

ALLOWED = 3.0  # seconds
IMPORT_TORCH = "import torch"
START_TRAINING = """if True:
    import sys, tempfile
    import flowexp.train
    flowexp.train.run = lambda config, folder: None
    with tempfile.TemporaryDirectory() as folder:
        sys.argv[1:] = ["+experiment=digits_fm", f"run_dir={folder}/run"]
        sys.exit(flowexp.train.main())
"""


def start(size: Size, rounds: int) -> Result:
    """`flowexp.train` up to its work, against the three seconds that it may take and against `import torch` alone.

    The processor's seconds of a fresh process, with its files in the system's cache: arguments, configuration, torch,
    Lightning and flowexp, but no data and no network, so that it is the same for 12 x 384 x 6 and for any other.
    """
    seconds = {
        "flowexp.train": lambda: seconds_of(START_TRAINING),
        "3 s": lambda: ALLOWED,
        "import torch": lambda: seconds_of(IMPORT_TORCH),
    }
    timings = Comparison(seconds).run(rounds, warmup=1 if size.judged else 0)
    return Result(
        [compare(timings, "flowexp.train", "3 s", Promise(1.0)), compare(timings, "flowexp.train", "import torch")]
    )


def seconds_of(code: str) -> float:
    """The processor's time of a process that runs `code`. Raises RuntimeError where it fails."""
    before = os.times()
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    after = os.times()
    if result.returncode:
        raise RuntimeError(result.stderr)
    return after.children_user + after.children_system - before.children_user - before.children_system
