"""The processes in which recipes run commands: new ones, or forks of one that has its imports already.

Most of the time of a run of two steps goes to importing torch, timm and Matplotlib. A budget of many such runs has them
forked from multiprocessing's fork server, which imports once; they are processes of their own all the same.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from multiprocessing import forkserver
from threading import Lock

from flowexp.cli.threads import THREADS, short_spin

# What training, measuring and drawing import. The server runs no tensor, so that no thread is there when it forks.
IMPORTED = (
    "flowexp.cli.launch", "flowexp.cli.jobs", "flowexp.cli.assembly.building", "flowexp.cli.assembly.rebuilding",
    "flowexp.train", "flowexp.evaluate", "flowexp.diagnose", "flowexp.measuring.callbacks",
    "flowexp.integrations.encoders", "matplotlib.pyplot", "timm", "torch._dynamo",
)  # fmt: skip
_FORKS = sys.platform == "linux"  # macOS loads frameworks that do not survive a fork

_warm = False
_starting = Lock()


@contextmanager
def warm_starts(wanted: bool = True) -> Iterator[None]:
    """Within it `run_process` forks a process that has its imports, where the system can."""
    global _warm
    before, _warm = _warm, wanted and _FORKS
    try:
        yield
    finally:
        _warm = before


def run_process(module: str, arguments: Sequence[str]) -> int:
    """Runs `python -m MODULE ARGUMENTS` with the environment and the folder of this process. Returns its exit code."""
    if not _warm:
        return subprocess.run([sys.executable, "-m", module, *arguments], env=os.environ, check=False).returncode
    _start_server()
    work = (module, [*arguments], dict(os.environ), os.getcwd())
    process = multiprocessing.get_context("forkserver").Process(target=_become, args=work)
    process.start()
    process.join()
    assert process.exitcode is not None
    return process.exitcode


def _start_server() -> None:
    """Starts the server of this process, if it has none yet."""
    with _starting:
        multiprocessing.set_forkserver_preload(list(IMPORTED))
        added = short_spin()  # libgomp reads it as torch is imported
        os.environ.update(added)
        forkserver.ensure_running()
        for name in added:
            del os.environ[name]


def _become(module: str, arguments: list[str], environment: dict[str, str], folder: str) -> None:
    """What a fork runs: the command's own `main`, as `python -m` would."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)
    sys.path[:1] = [folder]
    sys.argv = [module, *arguments]
    if environment.get(THREADS, "").isdigit():  # libgomp read the server's, as torch was imported
        importlib.import_module("torch").set_num_threads(int(environment[THREADS]))
    sys.exit(importlib.import_module(module).main())
