"""Real runs of the commands, in processes of their own and shared by the tests here: each costs seconds of imports."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

import flowexp
from flowexp.checkpoints import list_checkpoints, load_checkpoint

HERE = Path(__file__).parent
sys.path.append(str(HERE))  # tests compare with what witnesses.py wrote
NUM_STEPS = 12
TINY = (
    "data=digits", "data.train_size=64", "data.batch_size=16", "+backbone.depth=2", "+backbone.width=16",
    "+backbone.heads=2", f"trainer.max_steps={NUM_STEPS}", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "callbacks=none", "sampler.num_steps=4", "checkpoint.every_n_steps=2", "checkpoint.keep=99", "log_every_n_steps=2",
    "progress_bar=false",
)  # fmt: skip
LCF = (*TINY, "objective=lcf", "objective.T_min=200")


@pytest.hookimpl(tryfirst=True)  # before pytest-xdist reads the marks
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The tests of a file stay on one of pytest-xdist's workers, so that the runs which they share are made once."""
    for item in items:
        if item.path.parent == HERE:
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


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

    def start(self, command: str, *arguments: str, **environment: str) -> Started:
        source = Path(flowexp.__file__).parent.parent
        paths = [environment.pop("first_path", ""), str(source), str(HERE), os.environ.get("PYTHONPATH", "")]
        process = subprocess.Popen(
            [sys.executable, "-m", f"flowexp.{command}", *arguments],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), **environment},
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        return Started(process, time.monotonic())

    def run(self, command: str, *arguments: str, **environment: str) -> Finished:
        return self.start(command, *arguments, **environment).wait()


@dataclass(frozen=True)
class Interrupted:
    """A training that was killed, damaged, terminated and finished, all in one run folder."""

    folder: Path
    killed: Finished
    damaged: Path
    terminated: Finished
    saved_at_the_signal: Path
    finished: Finished


@pytest.fixture(scope="session")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    return Shell(tmp_path_factory.mktemp("commands"))


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
def interrupted(shell: Shell) -> Interrupted:
    """The training of `alone` with everything against it, and W&B beside it: offline, then with a dead server.

    1. kill -9 at a random moment; the newest checkpoint is cut in half.
    2. ckpt=auto, then SIGTERM at a random moment.
    3. ckpt=last, to the end.
    """
    slow = ("+callbacks.slow._target_=witnesses.Slow", "+callbacks.slow.seconds=0.3", "logger=wandb")
    root = shell.folder / "outputs"

    def reached(step: int) -> Callable[[], bool]:
        return lambda: any(root.rglob(f"step_{step:08d}.ckpt")) and not time.sleep(random.SystemRandom().random())

    killed = shell.start("train", *LCF, *slow).signal_when(reached(4), signal.SIGKILL)
    (checkpoints,) = root.rglob("checkpoints")
    damaged = list_checkpoints(checkpoints)[-1]
    os.truncate(damaged, damaged.stat().st_size // 2)
    next_step = int(damaged.stem.removeprefix("step_")) + 2
    terminated = shell.start("train", *LCF, *slow, "ckpt=auto").signal_when(reached(next_step), signal.SIGTERM)
    saved = list_checkpoints(checkpoints)[-1]
    dead_server = {"WANDB_MODE": "online", "WANDB_API_KEY": "0" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9"}
    finished = shell.run("train", *LCF, "logger=wandb", "logger.connect_seconds=3", "ckpt=last", **dead_server)
    return Interrupted(checkpoints.parent, killed, damaged, terminated, saved, finished)


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


@pytest.fixture(scope="session")
def ddp_sweep(shell: Shell) -> list[Path]:
    """The folders of a sweep over T_min, each job on two processes; at T_min=20 most batches have no anchor."""
    two_processes = ("strategy=ddp", "trainer.devices=2", "+callbacks.ranks._target_=witnesses.Ranks")
    swept = ("-m", "objective=lcf", "objective.T_min=20,200", "hydra.sweep.dir=ddp_sweep")
    shell.run("train", *TINY, *two_processes, *swept).succeeded()
    return [shell.folder / "ddp_sweep" / job for job in ("0", "1")]


@pytest.fixture
def in_process(workdir: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., int]:
    """Runs a command without a new process, job included, and returns its exit code."""
    from flowexp import jobs, launch

    def become(program: str, arguments: list[str]) -> None:
        monkeypatch.setattr(sys, "argv", arguments[2:])
        raise _Ended(jobs.main())

    def run(command: str, *arguments: str) -> int:
        monkeypatch.setattr(os, "execv", become)
        monkeypatch.setattr(sys, "argv", [])
        try:
            return launch.open_door(command, arguments)
        except _Ended as ended:
            return ended.code

    return run


class _Ended(BaseException):
    """Carries an exit code out of a process that would be no more."""

    def __init__(self, code: int) -> None:
        self.code = code
