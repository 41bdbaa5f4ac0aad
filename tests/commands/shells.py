"""A shell for tests: starts commands in processes of their own, or runs them in this one."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import flowexp

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Finished:
    """A command that has ended."""

    code: int
    out: str
    err: str
    seconds: float

    def succeeded(self) -> Finished:
        assert self.code == 0, f"exit code {self.code}\n{self.out}\n{self.err}"
        return self


@dataclass(frozen=True)
class Started:
    """A command that is running."""

    process: subprocess.Popen[str]
    since: float

    def wait(self, seconds: float = 300) -> Finished:
        out, err = self.process.communicate(timeout=seconds)
        return Finished(self.process.returncode, out, err, time.monotonic() - self.since)

    def signal_when(self, ready: Callable[[], Any], number: signal.Signals) -> Finished:
        """Sends a signal as soon as `ready` says so."""
        limit = time.monotonic() + 300
        while not ready() and self.process.poll() is None and time.monotonic() < limit:
            time.sleep(0.02)
        self.process.send_signal(number)
        return self.wait()


@dataclass(frozen=True)
class Shell:
    """Starts `python -m flowexp.COMMAND ...` in `folder`."""

    folder: Path
    in_process: Callable[..., int]
    warm_python: Callable[[], str]

    def start(self, command: str, *arguments: str, **environment: str) -> Started:
        source, first = Path(flowexp.__file__).parent.parent, environment.pop("first_path", "")
        paths = [first, str(source), str(HERE), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable if first else self.warm_python(), "-m", f"flowexp.{command}", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Started(process, time.monotonic())

    def run(self, command: str, *arguments: str, **environment: str) -> Finished:
        return self.start(command, *arguments, **environment).wait()

    def here(self, command: str, *arguments: str) -> Finished:
        """Runs the command in this process, which has the imports: for what another process would show no better."""
        out, err, since = io.StringIO(), io.StringIO(), time.monotonic()
        with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
            patch.chdir(self.folder)
            code = self.in_process(command, *arguments)
        return Finished(code, out.getvalue(), err.getvalue(), time.monotonic() - since)
