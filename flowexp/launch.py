"""The door between a command line and a job: Hydra composes a config, a fresh process runs it.

Every job is a process of its own that reads its resolved config from its run folder. No Hydra and no `-m` is left in
its command line, so that processes which Lightning starts beside it (DDP) read the same file: a sweep cannot give two
ranks different settings (hydra #2070, Lightning #11300). torch is imported by the job, not here: `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.errors import sentence_for
from flowexp.runs import RunFolder, find_run, training_key
from flowexp.sweeps import JobResult, print_table, swept_folders

COMMANDS = ("train", "encode", "sample", "evaluate", "diagnose", "adopt")
_OF_A_RUN = ("sample", "evaluate", "diagnose")
_WITHOUT_A_JOB = ("report", "replay")  # they read a run's folder and make none
_GIVEN_BY_A_LAUNCHER = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


def config_folder() -> Path:
    """`conf/`: beside the package in a checkout, inside it in an installed wheel."""
    package = Path(__file__).resolve().parent
    return package / "conf" if (package / "conf").is_dir() else package.parent / "conf"


def main() -> int:
    """The console script: `flowexp train ...` is `python -m flowexp.train ...`."""
    names = (*COMMANDS, *_WITHOUT_A_JOB)
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(f"usage: flowexp {{{','.join(names)}}} [key=value ...]   (flowexp train --help lists the keys)")
        return 0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2
    sys.argv = sys.argv[1:]
    return int(importlib.import_module(f"flowexp.{sys.argv[0]}").main())


def open_door(command: str, arguments: Sequence[str]) -> int:
    """Composes the config of `command` from `arguments` and runs it: once, or once for each job of a sweep."""
    folders: list[Path] = []
    door = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(
        lambda config: _through(command, config, folders)
    )
    shows_errors_in_full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # argparse, which reads them for Hydra, gives up on key=value both before and after an option
    ordered = sorted(arguments, key=lambda argument: argument not in ("-m", "--multirun"))
    sys.argv = [f"flowexp.{command}", *map(_accept_both_spellings, ordered)]
    try:
        with _errors_as_exceptions():
            door()
    except Exception as error:
        sentence = None if shows_errors_in_full else sentence_for(error, config_folder(), command, sys.argv[1:])
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    if swept_folders:
        return print_table(swept_folders.pop())
    return _become_job(command, folders[0]) if folders else 0


@contextmanager
def _errors_as_exceptions() -> Iterator[None]:
    """Hydra prints errors itself and exits, unless its own variable for full traces is set."""
    before = os.environ.get("HYDRA_FULL_ERROR")
    os.environ["HYDRA_FULL_ERROR"] = "1"
    try:
        yield
    finally:
        os.environ.pop("HYDRA_FULL_ERROR")
        if before is not None:
            os.environ["HYDRA_FULL_ERROR"] = before


def _accept_both_spellings(argument: str) -> str:
    """`+experiment=x` is `experiment=x`, and `lambda`, which Python reserves, is `lam`."""
    argument = argument.removeprefix("+") if argument.startswith("+experiment=") else argument
    return argument.replace("objective.lambda=", "objective.lam=", 1)


def _through(command: str, config: DictConfig, folders: list[Path]) -> float | None:
    """What Hydra calls with each composed config: makes the run folder, and in a sweep runs the job."""
    sweeping = HydraConfig.get().mode == RunMode.MULTIRUN
    config = _prepare(command, config, sweep=Path(HydraConfig.get().sweep.dir) if sweeping else None)
    run = RunFolder(Path(config.run_dir).absolute())
    run.create(config)
    if not sweeping:
        folders.append(run.path)
        return None
    return _run_swept_job(command, config, run)


def _run_swept_job(command: str, config: DictConfig, run: RunFolder) -> float | None:
    """One job of a sweep. A failure is noted, not raised: the other jobs go on."""
    environment = {key: value for key, value in os.environ.items() if key not in _GIVEN_BY_A_LAUNCHER}
    code = _wait_for(subprocess.Popen(_job_command(command, run.path), env=environment))
    JobResult(overrides=list(HydraConfig.get().overrides.task), exit_code=code).write(run)
    return run.summary().get("scalars", {}).get(config.get("optimized_metric"))


def _wait_for(job: subprocess.Popen[bytes]) -> int:
    """The exit code of a job. SIGTERM to the sweep reaches the job, which saves its run, and then ends the sweep."""
    if threading.current_thread() is not threading.main_thread():  # of a launcher that runs jobs in threads
        return job.wait()
    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        job.send_signal(number)

    before = signal.signal(signal.SIGTERM, pass_on)
    try:
        code = job.wait()
    finally:
        signal.signal(signal.SIGTERM, before)
    if asked:
        raise SystemExit(128 + asked[0])
    return code


def _become_job(command: str, folder: Path) -> int:
    """Replaces this process by the job, so that signals reach it."""
    sys.stdout.flush()
    sys.stderr.flush()
    argv = _job_command(command, folder)
    os.execv(argv[0], argv)


def _job_command(command: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "flowexp.jobs", command, str(folder)]


def _prepare(command: str, config: DictConfig, sweep: Path | None) -> DictConfig:
    """Decides the run's folder, and for a training run what it continues or whose training it shares."""
    with open_dict(config):
        if sweep is not None:
            config.run_dir = HydraConfig.get().runtime.output_dir
        else:
            _agree_on_folder(config)
        if command == "train":
            _continue_a_run(config)
            _share_training(config, sweep)
        elif command in _OF_A_RUN:
            _take_from_run(config)
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True, throw_on_missing=True))
        assert isinstance(resolved, DictConfig)
        return resolved


def _agree_on_folder(config: DictConfig) -> None:
    """Processes that a cluster starts by itself compose one config each; the job's id gives them one folder."""
    job = os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if int(os.environ.get("SLURM_NTASKS", 1)) > 1:
        job = os.environ.get("SLURM_JOB_ID", "none")
    if job != "none":
        config.run_dir = str(Path(config.run_dir).with_name(f"job_{job}"))


def _continue_a_run(config: DictConfig) -> None:
    """`ckpt=auto|last`: go on in the newest folder that trains the same; `auto` starts afresh where there is none."""
    if config.ckpt not in ("auto", "last"):
        return
    root = Path(config.output_root)
    run = find_run(root, training_key(config))
    if run is not None:
        config.run_dir = str(run.path)
    elif config.ckpt == "last":
        raise ValueError(
            f"ckpt=last found no run with these training settings below {root}: use ckpt=auto to start one, "
            "or ckpt=PATH for a certain checkpoint"
        )


def _share_training(config: DictConfig, sweep: Path | None) -> None:
    """Jobs of a sweep that differ only in training-free keys train once: later ones measure the first's checkpoint."""
    if sweep is not None and config.trained_run is None:
        finished = find_run(sweep, training_key(config), trained=True)
        is_itself = finished is not None and finished.path.absolute() == Path(config.run_dir).absolute()
        config.trained_run = None if finished is None or is_itself else str(finished.path.absolute())


def _take_from_run(config: DictConfig) -> None:
    """`sample` and `evaluate` keep the sampler of the run that they are given, but for what the command line says."""
    if OmegaConf.is_missing(config, "run"):
        raise ValueError("run is needed: the folder of a training run, as in run=outputs/digits_fm/<date>")
    trained = RunFolder(Path(config.run)).config()
    config.run = str(Path(config.run).absolute())
    overrides = list(HydraConfig.get().overrides.task)
    if not any(override.split("=")[0] in ("sampler", "ssc") for override in overrides):
        said = [override for override in overrides if override.startswith("sampler.")]
        config.sampler = OmegaConf.merge(trained.sampler, OmegaConf.from_dotlist(said).get("sampler", {}))


__all__ = ["COMMANDS", "config_folder", "main", "open_door"]

if __name__ == "__main__":
    sys.exit(main())
