"""Real runs of the commands, in processes of their own and shared by the tests here: each costs seconds of imports."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import flowexp
from flowexp.training.checkpoints import load_checkpoint

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # tests compare with what witnesses.py wrote
NUM_STEPS = 12
TINY = (
    "data=digits", "data.train_size=64", "data.batch_size=16", "+backbone.depth=2", "+backbone.width=16",
    "+backbone.heads=2", f"trainer.max_steps={NUM_STEPS}", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "callbacks=none", "sampler.num_steps=4", "checkpoint.every_n_steps=2", "checkpoint.keep=99", "log_every_n_steps=2",
    "progress_bar=false", "class_conditional=false",
)  # fmt: skip
LCF = (*TINY, "objective=lcf", "objective.T_min=200")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file stay on one of pytest-xdist's workers, so that the runs which they share are made once."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def commands_draw_quickly(quick_pictures: None) -> None:
    """How pictures look is asked in tests/records and tests/reporting."""


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


@pytest.fixture(scope="session")
def shell(
    tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int], request: pytest.FixtureRequest
) -> Shell:
    return Shell(tmp_path_factory.mktemp("commands"), in_this_process, lambda: request.getfixturevalue("warm_python"))


@pytest.fixture(scope="session")
def tiny() -> Sequence[str]:
    """Settings of a training of a second."""
    return TINY


@pytest.fixture(scope="session")
def lcf() -> Sequence[str]:
    """The same for LCF, with about three anchors in a batch."""
    return LCF


@pytest.fixture(scope="session")
def alone(shell: Shell) -> Path:
    """The folder of an LCF training that nobody disturbs."""
    shell.run("train", *LCF, "run_dir=alone").succeeded()
    return shell.folder / "alone"


@pytest.fixture(scope="session")
def trained_state() -> Callable[[Path], dict[str, Any]]:
    """Reads what training carries from step to step out of a checkpoint."""

    def read(file: Path) -> dict[str, Any]:
        content = load_checkpoint(file)
        return {name: content[name] for name in ("state_dict", "ema", "optimizer_states", "lr_schedulers")}

    return read


@pytest.fixture(scope="session")
def assert_identical() -> Callable[[Any, Any], None]:
    """Fails unless two nests of containers and tensors are equal bit for bit."""

    def compare(one: Any, other: Any) -> None:
        torch.testing.assert_close(one, other, rtol=0, atol=0)

    return compare
