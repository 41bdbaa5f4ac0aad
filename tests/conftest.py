"""What every test can count on: no network, no display, one thread, fixed global seeds."""

from __future__ import annotations

import gc
import multiprocessing.spawn
import os
import pickle
import random
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

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


@pytest.fixture(autouse=True)
def fixed_global_seeds() -> None:
    """Code under test takes explicit generators; what a test itself draws is still the same every time."""
    random.seed(0)
    if "numpy" in sys.modules:
        sys.modules["numpy"].random.seed(0)
    if "torch" in sys.modules:  # torch.manual_seed would write down the stack for devices that are not in use
        sys.modules["torch"].default_generator.manual_seed(0)


@pytest.fixture(scope="session", autouse=True)
def composed_once() -> Iterator[None]:
    """What Hydra composes of `conf/` alone is the same for the same words: a copy is given of what it once composed.

    Of other words with the same choices of groups the yamls are merged once, and only the values are set anew; each
    yaml is read once; and the choices so far are listed where a yaml asks for one of them. Copies are pickled ones,
    which take a sixth of the time of deep ones.
    """
    from hydra._internal import config_loader_impl, defaults_list
    from hydra._internal.config_loader_impl import ConfigLoaderImpl
    from hydra._internal.config_repository import ConfigRepository, IConfigRepository
    from hydra._internal.defaults_list import DefaultsList, Overrides
    from hydra.core.default_element import InputDefault
    from hydra.core.override_parser.types import Override

    from flowexp.cli.composing import config_folder

    compose, composed = ConfigLoaderImpl.load_configuration, {}
    choose, chosen = config_loader_impl.create_defaults_list, {}
    merge, merged = ConfigLoaderImpl._compose_config_from_defaults_list, {}
    read, were_read = ConfigRepository.load_config, {}
    list_choices = defaults_list._create_interpolation_map

    def is_of_conf_alone(sources: IConfigRepository | ConfigLoaderImpl) -> bool:
        return [each.path for each in sources.get_sources() if each.scheme() == "file"] == [str(config_folder())]

    def copy_of(kept: dict[Any, bytes], key: object, make: Callable[[], Any]) -> Any:
        if key not in kept:
            kept[key] = pickle.dumps(make())
        return pickle.loads(kept[key])

    def load(
        self: ConfigLoaderImpl, config_name: str | None, overrides: list[str], *rest: object, **named: object
    ) -> object:
        words = (config_name, *overrides, *map(repr, (rest, named)))
        if not is_of_conf_alone(self) or any("searchpath" in word for word in overrides):
            return compose(self, config_name, overrides, *rest, **named)
        config = copy_of(composed, words, lambda: compose(self, config_name, overrides, *rest, **named))
        config.hydra.runtime.cwd = os.getcwd()
        return config

    def defaults(
        repo: IConfigRepository, config_name: str | None, overrides_list: list[Override], **how: bool
    ) -> DefaultsList:
        def of_words() -> DefaultsList:
            return choose(repo=repo, config_name=config_name, overrides_list=overrides_list, **how)

        if not is_of_conf_alone(repo):
            return of_words()
        given = Overrides(repo=repo, overrides_list=overrides_list)
        groups = (given.override_choices, given.append_group_defaults, given.deletions)
        choices = repr((config_name, groups, how))
        if choices not in chosen:
            chosen[choices] = of_words()
        return replace(chosen[choices], config_overrides=given.config_overrides)

    def config_of(self: ConfigLoaderImpl, defaults: list[object], repo: IConfigRepository) -> object:
        if not is_of_conf_alone(repo):
            return merge(self, defaults=defaults, repo=repo)
        return copy_of(merged, repr(defaults), lambda: merge(self, defaults=defaults, repo=repo))

    def content(self: ConfigRepository, config_path: str) -> object:
        if not is_of_conf_alone(self):
            return read(self, config_path)
        return copy_of(were_read, config_path, lambda: read(self, config_path))

    def choices_so_far(overrides: Overrides, listed: list[InputDefault], self_added: bool) -> object:
        asked = any(each.is_interpolation() for each in listed)
        return list_choices(overrides, listed, self_added) if asked else None

    def with_its_sources(self: ConfigRepository, memo: object) -> ConfigRepository:
        repository = object.__new__(ConfigRepository)
        repository.sources = self.sources  # another search path would be another list
        return repository

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ConfigLoaderImpl, "load_configuration", load)
        patch.setattr(config_loader_impl, "create_defaults_list", defaults)
        patch.setattr(ConfigLoaderImpl, "_compose_config_from_defaults_list", config_of)
        patch.setattr(defaults_list, "_create_interpolation_map", choices_so_far)
        patch.setattr(ConfigRepository, "load_config", content)
        patch.setattr(ConfigRepository, "__deepcopy__", with_its_sources, raising=False)
        yield


@pytest.fixture(scope="session", autouse=True)
def yamls_read_by_libyaml() -> Iterator[None]:
    """OmegaConf's loader reads ten times as fast with the parser in C; what that refuses, its own refuses again."""
    import yaml
    from omegaconf._utils import get_yaml_loader

    load, own = yaml.load, get_yaml_loader()

    class Fast(yaml.cyaml.CParser, own):
        def __init__(self, stream: object) -> None:
            yaml.cyaml.CParser.__init__(self, stream)
            yaml.constructor.SafeConstructor.__init__(self)
            yaml.resolver.Resolver.__init__(self)

    def read(stream: Any, Loader: type) -> object:
        if Loader.__name__ != own.__name__:
            return load(stream, Loader)
        try:
            return load(stream, Fast)
        except yaml.YAMLError:
            if not isinstance(stream, str):
                stream.seek(0)
            return load(stream, Loader)

    with pytest.MonkeyPatch.context() as patch:
        if yaml.__with_libyaml__:
            patch.setattr(yaml, "load", read)
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


@pytest.fixture
def quick_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """For tests that ask whether a picture is made, and not how it looks.

    Those of a measurement, which tests/measuring draws, are a single point; in others nothing is laid out.
    """
    from matplotlib.figure import Figure

    from flowexp.records import figures, recording

    save, save_figure = Figure.savefig, figures.save_figure

    def without_layout(figure: Figure, *where: object, **how: object) -> None:
        figure.set_layout_engine("none")
        save(figure, *where, **{"dpi": 20, **how})

    def as_a_point(figure: Figure, path: Path) -> None:
        save_figure(Figure((1, 1), dpi=1) if path.suffix == ".png" else figure, path)

    monkeypatch.setattr(Figure, "savefig", without_layout)
    monkeypatch.setattr(recording, "save_figure", as_a_point)


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
