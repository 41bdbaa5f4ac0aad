"""What every test can count on: no network, no display, one thread, fixed global seeds."""

from __future__ import annotations

import gc
import multiprocessing.spawn
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))
from quick_composing import composed_once, yamls_read_by_libyaml

# Set before torch is imported, and inherited by the processes that tests start.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"
os.environ["MPLBACKEND"] = "Agg"
os.environ.setdefault("OMP_NUM_THREADS", "1")  # sums in one order on every machine

_OF_A_CLUSTER = ("RANK", "LOCAL_RANK", "NODE_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")


def forget_the_cluster() -> None:
    """Takes a cluster's variables out of the environment, which make Lightning wait for processes that do not exist."""
    for name in [*os.environ]:
        if name.startswith("SLURM_") or name in _OF_A_CLUSTER:
            del os.environ[name]


forget_the_cluster()  # a shell may lie inside a job


def pytest_collection_finish() -> None:
    """What is imported by now stays to the end: the garbage collector need not look through it again and again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(10_000, 10, 10)


def pytest_sessionfinish() -> None:
    gc.unfreeze()


@pytest.fixture(autouse=True)
def no_cluster_left_behind() -> Iterator[None]:
    """A strategy that trained in this process leaves its address in the environment."""
    yield
    forget_the_cluster()


@pytest.fixture
def begun_by_a_terminal() -> Iterator[None]:
    """Under nohup a process and its children ignore SIGHUP, and so do runs of flowexp."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture(autouse=True)
def fixed_global_seeds() -> None:
    """Code under test takes explicit generators; what a test itself draws is still the same every time."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:  # torch.manual_seed would write down the stack for devices that are not in use
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def quick_composing() -> Iterator[None]:
    with composed_once(), yamls_read_by_libyaml():
        yield


@pytest.fixture(scope="session", autouse=True)
def disks_that_are_not_waited_for() -> Iterator[None]:
    """No test cuts the power: what is written need not have reached the disk."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture
def workdir(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder, for code that writes beside itself."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def fashion_mnist() -> Any:
    """The pictures that the zoo's networks have trained on, and those that they have not."""
    from flowexp.data import FashionMNIST

    if not FashionMNIST.system_folder.is_dir():
        pytest.skip("dataset-fashion-mnist is not installed")
    data = FashionMNIST()
    data.setup()
    return data


@pytest.fixture(scope="session")
def warm_python() -> Iterator[str]:
    """A program in the place of `sys.executable` that has its imports already; see warm_python.py."""
    if sys.platform != "linux":
        yield sys.executable
        return
    folder = Path(tempfile.mkdtemp())  # a socket's path is short
    place, program, file = folder / "server", folder / "python", str(Path(__file__).with_name("warm_python.py"))
    program.write_text(f"#!/bin/sh\nexec '{sys.executable}' -IS '{file}' '{place}' '{sys.executable}' \"$@\"\n")
    program.chmod(0o755)
    words = [sys.executable, file, str(place), str(program), "serve"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as server:
        assert server.stdin is not None and server.stdout is not None
        assert server.stdout.readline() == b"ready\n"
        yield str(program)
        server.stdin.close()
    shutil.rmtree(folder)


@pytest.fixture
def warm_processes(warm_python: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Commands that the code under test starts, and processes that a test spawns, have their imports already."""
    monkeypatch.setattr(sys, "executable", warm_python)
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(warm_python)
    yield
    multiprocessing.set_executable(before)


@pytest.fixture(scope="session")
def drawn() -> set[tuple[str, str]]:
    """The measurements and kinds of picture of which one was drawn."""
    return set()


@pytest.fixture
def quick_pictures(drawn: set[tuple[str, str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that ask whether a picture is made, and not how it looks: nothing is laid out.

    Of each measurement the first one is drawn, so that all can be; the others are a single point.
    """
    from matplotlib.figure import Figure

    from flowexp.records import figures, recording

    save, save_figure = Figure.savefig, figures.save_figure

    def without_layout(figure: Figure, *where: object, **how: object) -> None:
        figure.set_layout_engine("none")
        save(figure, *where, **{"dpi": 20, **how})

    def first_of_its_kind(figure: Figure, path: Path) -> None:
        kind = (path.parent.name, path.stem.rstrip("0123456789"))
        save_figure(Figure((1, 1), dpi=1) if path.suffix == ".png" and kind in drawn else figure, path)
        drawn.add(kind)

    monkeypatch.setattr(Figure, "savefig", without_layout)
    monkeypatch.setattr(recording, "save_figure", first_of_its_kind)


@pytest.fixture(scope="session")
def in_this_process() -> Callable[..., int]:
    """Runs a command in the current folder without a new process, job included, and returns its exit code."""
    from flowexp.cli import jobs, launch

    def run(command: str, *arguments: str) -> int:
        with pytest.MonkeyPatch.context() as patch:

            def become(program: str, words: list[str]) -> None:
                patch.setattr(sys, "argv", words[2:])
                raise _Ended(jobs.main())

            patch.setattr(os, "execv", become)
            patch.setattr(jobs, "_show_warning", warnings.showwarning)  # pytest's, which records them
            patch.setattr(sys, "argv", [])
            try:
                return launch.open_door(command, arguments)
            except _Ended as ended:
                return ended.code

    return run


@pytest.fixture
def in_process(workdir: Path, in_this_process: Callable[..., int]) -> Callable[..., int]:
    """Runs a command in this process and an empty folder, and returns its exit code."""
    return in_this_process


class _Ended(BaseException):
    """Carries an exit code out of a process that would be no more."""

    def __init__(self, code: int) -> None:
        self.code = code
