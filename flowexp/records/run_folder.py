"""A run's folder: what lies in it, how it is written and how it is read. Imports no torch."""

from __future__ import annotations

import copy
import os
import platform
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import count
from pathlib import Path
from threading import Event
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from flowexp.records.commit import git_commit
from flowexp.records.files import atomic
from flowexp.records.files.json_files import read_object
from flowexp.records.keys import TRAINING_KEYS, course_key, measuring_key, num_steps_of, training_key
from flowexp.records.origin import version_of

CONFIG = "FLOWEXP_CONFIG"  # variable with a job's resolved config as YAML: its folder gets it when the work begins
# What reading a record raises that is damaged in any way: a key that is gone, a value of another kind, no YAML at all.
UNREADABLE = (OSError, ValueError, TypeError, LookupError, AttributeError, OmegaConfBaseException)


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    `config.yaml` (resolved), `run.json` (versions, commit, seed, machine), `checkpoints/`, `csv/` (training curves),
    `measurements/` and `measurements.jsonl`, `trained.json` when training has ended, `summary.json` when all has, and
    `log.txt` with the trace of what went wrong. Of a dry run: `config.yaml` and `plan.json`.
    """

    path: Path
    _begun: Event = field(default_factory=Event, compare=False, repr=False)

    @property
    def config_file(self) -> Path:
        return self.path / "config.yaml"

    @property
    def origin_file(self) -> Path:
        return self.path / "run.json"

    @property
    def plan_file(self) -> Path:
        return self.path / "plan.json"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def trained_file(self) -> Path:
        return self.path / "trained.json"

    @property
    def summary_file(self) -> Path:
        return self.path / "summary.json"

    # --- written -----------------------------------------------------------------------------------------------------

    @property
    def has_begun(self) -> bool:
        """Whether this process has begun to work in the folder: what was there before is no longer all."""
        return self._begun.is_set()

    def holds_work(self) -> bool:
        """Whether a job has begun to work here at some time."""
        return any(place.exists() for place in (self.config_file, self.origin_file, self.checkpoints))

    def create(self, config: DictConfig) -> None:
        """Makes the folder and writes the resolved config into it."""
        atomic.write_text(self.config_file, OmegaConf.to_yaml(config, resolve=True))

    def begin(self, config: DictConfig, *, is_first: bool = True) -> None:
        """Writes the config of work that really begins; until then a job leaves its folder as it was.

        A summary of other work is set aside: it belongs to the config that is replaced. is_first: whether this process
        is the one that writes.
        """
        if not is_first or self.has_begun:
            self._begun.set()
            return
        if self.summary_file.exists() and self._work() != _work_of(config):
            self._set_summary_aside()
        self.create(config)
        self._begun.set()

    def begin_training(self, config: DictConfig, origin: Mapping[str, Any]) -> None:
        """`begin` of a training, whose records become those of the weights that it will have.

        `trained.json` goes until the new end is reached. Of a run that is trained on with other settings, or for
        longer, `run.json` keeps the record of what it was under `earlier`.
        """
        if self.has_begun:
            return
        self.trained_file.unlink(missing_ok=True)
        atomic.write_json(self.origin_file, self._continued(origin))
        self.begin(config)

    def note_origin(self, origin: Mapping[str, Any]) -> None:
        """Writes `run.json` where there is none yet."""
        if not self.origin_file.exists():
            atomic.write_json(self.origin_file, dict(origin))

    def _continued(self, origin: Mapping[str, Any]) -> dict[str, Any]:
        """The content of `run.json` for a training that begins, or continues, in this folder."""
        try:
            before = self.origin()
        except (OSError, ValueError):  # none, or a damaged one
            return dict(origin)
        if before.get("training_key") == origin["training_key"]:
            return {**before, **{key: origin[key] for key in origin if key not in before}}
        earlier, course = before.pop("earlier", []), self.course()
        start = before.get("began_from")
        if course != origin.get("course_key"):  # the weights of neither settings alone
            start = f"training {before.get('training_key')} in this folder"
        return {**origin, "began_from": start, "earlier": [*(earlier if isinstance(earlier, list) else []), before]}

    def _work(self) -> str | None:
        with suppress(*UNREADABLE):
            return _work_of(self.config())
        return None

    def _set_summary_aside(self) -> None:
        """`summary.json` becomes `summary_step_00000060.json`, or one with a number behind it."""
        step = self.summary().get("step")
        stem = f"summary_step_{step:08d}" if isinstance(step, int) else "summary_earlier"
        names = (self.path / f"{stem}{'' if number == 1 else f'_{number}'}.json" for number in count(1))
        os.replace(self.summary_file, next(name for name in names if not name.exists()))

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in this folder at the same time; also a kill lets go of it.

        On file systems without locks nothing is excluded. Raises ValueError where another process holds the folder.
        """
        with (self.path / ".lock").open("a+") as file:
            file.seek(0)
            before = file.read()
            if not _lock(file):
                raise ValueError(
                    f"another process trains in {self.path} ({before.strip()}): wait until it ends, stop it, or "
                    "leave ckpt and run_dir out to start a run of your own"
                )
            _fill(file, f"process {os.getpid()} on {platform.node()}\n")
            try:
                yield
            finally:
                if not self.has_begun:
                    _fill(file, before)

    # --- read --------------------------------------------------------------------------------------------------------

    def config(self) -> DictConfig:
        """The config that the run was made from. Raises ValueError where `path` is no run folder, or it is damaged."""
        if not self.config_file.exists():
            raise ValueError(
                f"{self.path} is no run folder: it has no config.yaml. Give the folder that a training run printed at "
                "its end, such as outputs/digits_fm/<date>"
            )
        return _read_config(self.config_file)

    def trained_config(self) -> DictConfig:
        """The config of a training run. Raises ValueError, as `config` does, also where it lacks a part of one."""
        config = self.config()
        if "run" in config and "objective" not in config:
            raise ValueError(f"{self.path} holds what was measured of a run: give that run, run={config.run}")
        if missing := [key for key in (*TRAINING_KEYS, "sampler") if key not in config]:
            raise ValueError(
                f"{self.config_file} has no {', '.join(missing)}: it is cut off, or of another version "
                f"({self.made_by()})"
            )
        return config

    def is_of_another_version(self) -> bool:
        """Whether `run.json` names another flowexp than this, or nothing that can be read."""
        return self._version() != (version_of("flowexp"), git_commit())

    def made_by(self) -> str:
        """Which flowexp made the run, and which this is."""
        version, commit = self._version()
        return (
            f"the run was made by flowexp {version or '(unknown)'}, commit {_short(commit)}; this is "
            f"{version_of('flowexp')}, commit {_short(git_commit())}"
        )

    def _version(self) -> tuple[Any, Any]:
        with suppress(OSError, ValueError):
            origin = self.origin()
            versions = origin.get("versions")
            return versions.get("flowexp") if isinstance(versions, dict) else None, origin.get("commit")
        return None, None

    def trained_step(self) -> int | None:
        """The step at which training ended; None while it has not, or where that cannot be read."""
        step = read_tolerantly(self.trained_file).get("step")
        return step if isinstance(step, int) else None

    def has_trained(self) -> bool:
        return self.trained_step() is not None

    def trained_by(self) -> RunFolder:
        """The run that trained the weights which this one measured: itself, or the one that it shares them with.

        The latter is looked for first at the place that it had beside this one, as both may have been moved.
        """
        config = self.config()
        if (shared := config.get("trained_run")) is None:
            return self
        shared = Path(shared)
        beside = self.path / os.path.relpath(shared, str(config.get("run_dir", shared.parent / self.path.name)))
        places = [RunFolder(place) for place in (beside, self.path.absolute().parent / shared.name)]
        return next((place for place in places if self._trains_as(place)), RunFolder(shared))

    def _trains_as(self, other: RunFolder) -> bool:
        """Whether another folder trains what this one shares."""
        with suppress(OSError, ValueError):
            return other.path.resolve() != self.path.resolve() and other.trains() == self.trains() is not None
        return False

    def trains(self) -> str | None:
        """The key of what is trained here, from `run.json`, or where that is lost from the config of the checkpoints.

        None where nothing is. Raises OSError or ValueError where it cannot be read.
        """
        if self.origin_file.exists() and isinstance(key := self.origin().get("training_key"), str):
            return key
        if not self.origin_file.exists() and not self.checkpoints.exists():
            return None
        try:
            return training_key(self.trained_config())
        except (OSError, ValueError):
            raise
        except UNREADABLE as error:
            reason = " ".join(str(error).split())
            raise ValueError(f"{self.config_file} is damaged ({reason}), and {self.origin_file} is gone") from error

    def course(self) -> str | None:
        """`course_key` of what is trained here; None where that cannot be read."""
        with suppress(*UNREADABLE):
            return (self.origin().get("course_key") if self.origin_file.exists() else None) or course_key(
                self.trained_config()
            )
        return None

    def num_steps(self, trainer: DictConfig | None = None) -> int | None:
        """The steps that the training here is to have, or by `trainer` would have; None where that is not known."""
        with suppress(*UNREADABLE):
            origin = self.origin()
            if trainer is None and isinstance(known := origin.get("num_steps"), int):
                return known
            return num_steps_of(trainer or self.trained_config().trainer, origin.get("steps_per_epoch"))
        return None

    def is_shorter_than(self, config: DictConfig) -> bool:
        """Whether the training here is that of `config` but for its end, which comes earlier."""
        if self.course() != course_key(config):
            return False
        mine, longer = self.num_steps(), self.num_steps(config.trainer)
        return mine is not None and longer is not None and mine < longer

    def summary(self) -> dict[str, Any]:
        """What the run ended with; empty while it has not, and with a warning where it cannot be read."""
        return read_tolerantly(self.summary_file)

    def origin(self) -> dict[str, Any]:
        """Where the run comes from, and its plan: `run.json`. Raises OSError or ValueError where it cannot be read."""
        return read_object(self.origin_file)


def _read_config(file: Path) -> DictConfig:
    """A copy of what the file holds, which is read again where it has changed: commands ask for it several times."""
    state = file.stat()
    return copy.deepcopy(_config_in(file, Path.cwd(), state.st_mtime_ns, state.st_size, state.st_ino))


@lru_cache(maxsize=256)
def _config_in(file: Path, *_: object) -> DictConfig:
    try:
        config = OmegaConf.load(file)
    except Exception as error:  # the parsers raise several kinds, and OSError without a number for a lone word
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = " ".join(str(error).split())
        raise ValueError(f"{file} is damaged: it cannot be read as YAML ({reason[:200]})") from error
    if not isinstance(config, DictConfig) or not config:
        what = "is empty" if isinstance(config, DictConfig) else "holds a list"
        raise ValueError(f"{file} is damaged: it must hold a run's settings by their names, and {what}")
    if reference := next(_references(OmegaConf.to_container(config)), None):
        raise ValueError(
            f"{file} is damaged, or not by flowexp: a run's settings are stored resolved, and one refers to {reference}"
        )
    return config


def _references(content: Any) -> Iterator[str]:
    """Values such as ${oc.env:HOME} in nested containers: a stored config reads nothing of whoever reads it."""
    if isinstance(content, str) and "${" in content:
        yield content
    elif isinstance(content, Mapping | list):
        for inner in content.values() if isinstance(content, Mapping) else content:
            yield from _references(inner)


def read_tolerantly(file: Path) -> dict[str, Any]:
    """The object in a record that a run can do without: empty where there is none, or with a warning a damaged one."""
    try:
        content = read_object(file)
        if not all(isinstance(content.get(key, {}), dict) for key in ("scalars", "protocol")):
            raise ValueError(f"{file} is damaged: its scalars and its protocol must be objects")
    except FileNotFoundError:
        return {}
    except OSError as error:
        warn(f"{file} cannot be read ({error.strerror}): taken as missing")
    except ValueError as error:
        warn(f"{error} (taken as missing)")
    else:
        return content
    return {}


def warn(sentence: str) -> None:
    """Print a warning that does not end the command."""
    print(f"warning: {sentence}", file=sys.stderr)


def _short(commit: Any) -> str:
    return str(commit)[:9] if commit else "unknown"


def _work_of(config: DictConfig) -> str:
    """What a summary belongs to: of a training its weights and what is measured of them, else the whole config."""
    if "objective" in config and "run" not in config:
        return f"{training_key(config)} {measuring_key(config)}"
    return OmegaConf.to_yaml(config, resolve=True)


def _fill(file: TextIO, text: str) -> None:
    file.truncate(0)
    file.write(text)
    file.flush()


def _lock(file: TextIO) -> bool:
    """Locks a file for this process alone, until it ends; False where another process has.

    By hand and not by filelock, which guards the caches: its flock passes to forked data workers, which may outlive a
    killed training for seconds, and on a file system without locks it falls back to a file that a kill leaves behind.
    A lock of fcntl is the process's alone. Its trap: closing the file anywhere in the process lets go of it.
    """
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True
