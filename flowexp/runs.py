"""A run's folder: what lies in it, how it is found again, and which runs train the same thing. Imports no torch."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from importlib import metadata
from pathlib import Path
from typing import Any, TextIO

from omegaconf import DictConfig, OmegaConf

from flowexp.commit import git_commit

# What decides the trained weights. All else (sampler, monitors, logger, names) can change without training again.
TRAINING_KEYS = (
    "objective",
    "data",
    "backbone",
    "class_conditional",
    "interpolant",
    "time_sampler",
    "parameterization",
    "coupling",
    "terms",
    "optimizer",
    "lr_schedule",
    "ema",
    "trainer",
    "strategy",
    "compile",
    "seed",
)
# Keys below them that say where something lies or how fast it is read, and not what is trained or measured.
_PLACES_NOT_CONTENT = {
    "data": (
        "root", "on_device", "num_workers", "cache", "decoder", "with_pictures", "vae.weights", "vae.batch_size",
        "pictures.root", "pictures.on_device", "pictures.num_workers", "pictures.cache", "pictures.batch_size",
        "pictures.text.weights",
    ),  # a cache of latents knows which pictures, autoencoder and text encoder made it
    "terms": ("*.cache", "*.teacher_options.weights"),
    "callbacks": ("*.cache", "*.encoder.weights"),
}  # fmt: skip
SAID = "FLOWEXP_COMMAND"  # variable with the command line that a job was started for; its own says only the folder
_VERSIONS_OF = ("flowexp", "torch", "pytorch-lightning", "torchmetrics", "timm", "hydra-core", "wandb", "numpy")


@dataclass(frozen=True)
class RunFolder:
    """The folder of one run.

    `config.yaml` (resolved), `run.json` (versions, commit, seed, machine), `checkpoints/`, `csv/` (training curves),
    `measurements/` and `measurements.jsonl`, `trained.json` when training has ended, `summary.json` when all has, and
    `log.txt` with the trace of what went wrong. Of a dry run: `config.yaml` and `plan.json`.
    """

    path: Path

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

    def create(self, config: DictConfig) -> None:
        """Makes the folder and writes the resolved config into it."""
        self.path.mkdir(parents=True, exist_ok=True)
        _write_whole(self.config_file, OmegaConf.to_yaml(config, resolve=True))

    def config(self) -> DictConfig:
        """The config that the run was made from. Raises ValueError where `path` is no run folder."""
        if not self.config_file.exists():
            raise ValueError(
                f"{self.path} is no run folder: it has no config.yaml. Give the folder that a training run printed at "
                "its end, such as outputs/digits_fm/<date>"
            )
        config = OmegaConf.load(self.config_file)
        assert isinstance(config, DictConfig)
        return config

    def has_trained(self) -> bool:
        return self.trained_file.exists()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keeps other processes from training in this folder at the same time; also a kill lets go of it.

        Nothing is kept away on file systems without locks. Raises ValueError where another process holds the folder.
        """
        with (self.path / ".lock").open("a+") as file:
            if not _lock(file):
                file.seek(0)
                raise ValueError(
                    f"another process trains in {self.path} ({file.read().strip()}): wait until it ends, stop it, or "
                    "leave ckpt and run_dir out to start a run of your own"
                )
            file.truncate(0)
            file.write(f"process {os.getpid()} on {platform.node()}\n")
            file.flush()
            yield

    def trained_by(self) -> RunFolder:
        """The run that trained the weights which this one measured: itself, or the one that it shares them with."""
        shared = self.config().get("trained_run")
        return self if shared is None else RunFolder(Path(shared))

    def summary(self) -> dict[str, Any]:
        """What the run ended with; empty while it has not."""
        return json.loads(self.summary_file.read_text()) if self.summary_file.exists() else {}

    def origin(self) -> dict[str, Any]:
        """Where the run comes from, and its plan: `run.json`."""
        return json.loads(self.origin_file.read_text())

    def write_json(self, path: Path, content: dict[str, Any]) -> None:
        """Writes `content` so that a reader sees the old file or the new one, never half of it."""
        _write_whole(path, json.dumps(content, indent=2) + "\n")


def _lock(file: TextIO) -> bool:
    """Locks a file for this process alone, until it ends; False where another process has."""
    try:
        import fcntl
    except ImportError:  # Windows
        return True
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # forked workers do not inherit it, unlike flock's
    except (BlockingIOError, PermissionError):
        return False
    except OSError:  # a file system without locks
        return True
    return True


def _write_whole(path: Path, text: str) -> None:
    """Writes `text` beside the file and renames it; processes of a cluster may do so at the same moment."""
    temporary = path.with_name(f".{path.name}.{platform.node()}.{os.getpid()}.partial")
    temporary.write_text(text)
    temporary.replace(path)


def training_key(config: DictConfig) -> str:
    """A hash of all settings that decide the trained weights: equal keys train equal weights."""
    return _hash_of(config, TRAINING_KEYS, _stopping(config))


def _stopping(config: DictConfig) -> dict[str, Any]:
    """Lightning's own callbacks, of which some end a training or change its weights; checkpoints change nothing."""
    chosen = {name: node for name, node in chosen_callbacks(config).items() if _may_stop(str(node["_target_"]))}
    return {name: OmegaConf.to_container(node, resolve=True) for name, node in chosen.items()}


def _may_stop(target: str) -> bool:
    return target.startswith(("pytorch_lightning.", "lightning.")) and not target.endswith("Checkpoint")


def measuring_key(config: DictConfig) -> str:
    """A hash of all settings that decide what is measured of given weights, and when."""
    return _hash_of(config, ("sampler", "callbacks"))


def chosen_callbacks(config: DictConfig) -> dict[str, DictConfig]:
    """The entries of `callbacks` that are built, by name and in their order.

    One set to null is left out, and so is one of which only settings are given: those that an experiment has for a
    monitor which `callbacks=` does not choose.
    """
    return {str(name): node for name, node in config.callbacks.items() if node is not None and "_target_" in node}


def measured_while_training(config: DictConfig) -> dict[str, int]:
    """The keys that ask for measurements before the end, with their steps: a run that trains nothing makes none."""
    monitors = chosen_callbacks(config)
    asked = {f"callbacks.{name}.every_n_steps": node.get("every_n_steps") for name, node in monitors.items()}
    return {key: steps for key, steps in asked.items() if steps is not None}


def _hash_of(config: DictConfig, keys: Iterable[str], further: Mapping[str, Any] | None = None) -> str:
    settings: dict[str, Any] = {"further": further} if further else {}
    for key in keys:
        value = OmegaConf.to_container(config[key], resolve=True) if OmegaConf.is_config(config[key]) else config[key]
        settings[key] = _without(value, _PLACES_NOT_CONTENT.get(key, ()))
    return hashlib.sha256(json.dumps(settings, sort_keys=True).encode()).hexdigest()[:16]


def _without(value: Any, patterns: Iterable[str], below: str = "") -> Any:
    """`value` without the keys whose dotted path matches one of the patterns."""
    if not isinstance(value, dict):
        return value
    kept = {key: inner for key, inner in value.items() if not any(fnmatchcase(f"{below}{key}", p) for p in patterns)}
    return {key: _without(inner, patterns, f"{below}{key}.") for key, inner in kept.items()}


def runs_below(root: Path) -> Iterator[RunFolder]:
    """All training runs below `root`, the newest first."""
    configs = [path for path in root.rglob("config.yaml") if RunFolder(path.parent).origin_file.exists()]
    for path in sorted(configs, key=lambda path: path.stat().st_mtime, reverse=True):
        yield RunFolder(path.parent)


def find_run(root: Path, key: str, *, trained: bool = False) -> RunFolder | None:
    """The newest run below `root` that trains what `key` names, with its training finished if `trained`.

    Jobs of a sweep that measure another job's training have no checkpoint to continue from, and do not count.
    """
    for run in runs_below(root):
        trains_it = run.origin().get("training_key") == key and run.config().get("trained_run") is None
        if trains_it and (run.has_trained() or not trained):
            return run
    return None


def summaries_of(run: Path, leaving_out: Path) -> dict[str, dict[str, Any]]:
    """What the run in a folder and its evaluations ended with, by their place in it, the newest first.

    A summary that cannot be read, or that lies below `leaving_out`, is passed over.
    """
    files = [file for below in (".", "evaluations/*", "evaluations/*/*") for file in run.glob(f"{below}/summary.json")]
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        if leaving_out.absolute() not in file.absolute().parents:
            with suppress(OSError, ValueError):
                found[_place_in(run, file.parent)] = json.loads(file.read_text())
    return found


def _place_in(run: Path, folder: Path) -> str:
    return "its training" if folder == run else str(folder.relative_to(run))


def describe_origin(config: DictConfig) -> dict[str, Any]:
    """Where a run comes from: command, key, seed, versions, commit and machine."""
    return {
        "command": os.environ.get(SAID, shlex.join(sys.orig_argv)),
        "training_key": training_key(config),
        "seed": config.seed,
        "versions": {name: _version_of(name) for name in _VERSIONS_OF} | {"python": platform.python_version()},
        "commit": git_commit(),
        "machine": {"system": platform.system(), "processor": _processor(), "cores": os.cpu_count()},
    }


def _processor() -> str:
    """The processor's name where the system tells it (Linux), else its kind."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().splitlines() if cpuinfo.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _version_of(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
