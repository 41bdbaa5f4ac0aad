"""The door between a command line and a job: Hydra composes a config, a fresh process runs it.

Every job is a process of its own that reads its resolved config from its run folder. No Hydra and no `-m` is left in
its command line, so that processes which Lightning starts beside it (DDP) read the same file: a sweep cannot give two
ranks different settings (hydra #2070, Lightning #11300). torch is imported by the job, not here: `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import count
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf, open_dict

from flowexp.completion import complete
from flowexp.errors import nearest, sentence_for
from flowexp.help import help_page
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
    if sys.argv[1:2] in (["-sc"], ["--shell-completion"]):
        return complete(sys.argv[1:], COMMANDS, open_door)
    if len(sys.argv) < 2 or sys.argv[1] not in names:
        print(f"usage: flowexp {{{','.join(names)}}} [key=value ...]   (flowexp train --help lists the keys)")
        return 0 if sys.argv[1:] in ([], ["--help"], ["-h"]) else 2
    sys.argv = sys.argv[1:]
    return int(importlib.import_module(f"flowexp.{sys.argv[0]}").main())


def open_door(command: str, arguments: Sequence[str]) -> int:
    """Composes the config of `command` from `arguments` and runs it: once, or once for each job of a sweep."""
    folders: list[Path] = []
    refusals: list[Exception] = []
    door = hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(
        lambda config: _through(command, config, folders, refusals)
    )
    shows_errors_in_full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # argparse, which reads them for Hydra, gives up on key=value both before and after an option
    ordered = sorted(arguments, key=_is_override)
    sys.argv = [f"flowexp.{command}", *map(_accept_both_spellings, ordered)]
    try:
        if {"-h", "--help"} & {*arguments}:
            print(help_page(command, [a for a in sys.argv[1:] if _is_override(a)], config_folder()))
            return 0
        with _errors_as_exceptions():
            door()
        if refusals:
            raise refusals[0]
    except Exception as error:
        sentence = None if shows_errors_in_full else sentence_for(error, config_folder(), command, sys.argv[1:])
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; jobs that have begun keep their folders", file=sys.stderr)
        return 128 + signal.SIGINT
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


def _is_override(argument: str) -> bool:
    """Whether it is key=value or ~key, and neither an option such as `--config-dir` nor the option's value."""
    return argument.startswith("~") or ("=" in argument and not argument.startswith("-"))


def _accept_both_spellings(argument: str) -> str:
    """`+experiment=x` is `experiment=x`, and `lambda`, which Python reserves, is `lam`."""
    argument = argument.removeprefix("+") if argument.startswith("+experiment=") else argument
    return re.sub(r"^(\+{0,2}(?:objective|terms\.\w+)\.)lambda=", r"\1lam=", argument)


def _through(command: str, config: DictConfig, folders: list[Path], refusals: list[Exception]) -> float | None:
    """What Hydra calls with each composed config: makes the run folder, and in a sweep runs the job.

    Of a single run, `refusals` takes what is wrong with it: Hydra would print a line of its own before it.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        sweep = Path(HydraConfig.get().sweep.dir)
        return _run_swept_job(command, *_run_folder(command, config, sweep))
    try:
        folders.append(_run_folder(command, config, sweep=None)[1].path)
    except Exception as error:
        refusals.append(error)
    return None


def _run_folder(command: str, config: DictConfig, sweep: Path | None) -> tuple[DictConfig, RunFolder]:
    """The settled config of a run, and its folder, which is made."""
    config = _prepare(command, config, sweep)
    run = RunFolder(Path(config.run_dir).absolute())
    run.create(config)
    return config, run


def _run_swept_job(command: str, config: DictConfig, run: RunFolder) -> float | None:
    """One job of a sweep. A failure is noted, not raised: the other jobs go on."""
    environment = {key: value for key, value in os.environ.items() if key not in _GIVEN_BY_A_LAUNCHER}
    code = _wait_for(subprocess.Popen(_job_command(command, run.path), env=environment))
    result = JobResult(run=str(run.path), overrides=list(HydraConfig.get().overrides.task), exit_code=code)
    result.write(Path(HydraConfig.get().runtime.output_dir))
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
    except KeyboardInterrupt:  # the job got Ctrl-C too, and saves its run
        job.wait()
        raise
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
        if command in _OF_A_RUN:
            _take_from_run(config)  # first: the folder lies in that of the run
        is_settled = _settle_folder(command, config, sweep)
        if command == "train":
            is_settled = _continue_a_run(config) or is_settled
            _share_training(config, sweep)
            _check_same_training(config)
        OmegaConf.to_container(config, resolve=True, throw_on_missing=True)  # raises before there is a folder
        if not is_settled:
            config.run_dir = str(unused_folder(Path(config.run_dir)))
        resolved = OmegaConf.create(OmegaConf.to_container(config, resolve=True))
        assert isinstance(resolved, DictConfig)
        return resolved


def _settle_folder(command: str, config: DictConfig, sweep: Path | None) -> bool:
    """Decides the folder where something other than the moment does; False where `run_dir` names it by the moment."""
    if sweep is not None:
        _check_sweeps_once()
        config.run_dir = HydraConfig.get().runtime.output_dir
        return True
    if any(override.startswith("run_dir=") for override in HydraConfig.get().overrides.task):
        return True
    return command != "encode" and _agree_on_folder(config)  # encoding shares no folder but the output's


def unused_folder(path: Path) -> Path:
    """Makes the folder `path`, or one beside it with a number: two runs may start in the same second."""
    for number in count(1):
        folder = path if number == 1 else path.with_name(f"{path.name}_{number}")
        with suppress(FileExistsError):
            folder.mkdir(parents=True)
            return folder
    raise AssertionError


def _agree_on_folder(config: DictConfig) -> bool:
    """Processes that a cluster starts by itself compose one config each; the job's id gives them one folder.

    Returns whether there are any.

    Raises:
        ValueError: the launcher gives them no id in common, and the command line no folder.
    """
    num = _num_of("SLURM_NTASKS", "WORLD_SIZE")
    if num == 1:
        return False
    job = os.environ.get("SLURM_JOB_ID") or os.environ.get("TORCHELASTIC_RUN_ID", "none")
    if job == "none":
        raise ValueError(
            f"{num} processes were started that have no name in common: add run_dir=FOLDER, or to torchrun "
            "--rdzv-id=NAME or --standalone"
        )
    step = os.environ.get("SLURM_STEP_ID", "0")  # srun counts its calls in a job, anew where it is requeued
    config.run_dir = str(Path(config.run_dir).with_name(f"job_{job}" if step == "0" else f"job_{job}_{step}"))
    return True


def _check_sweeps_once() -> None:
    """Raises ValueError where each of several processes would sweep on its own; submitit's are those of one job."""
    if (num := _num_of("SLURM_STEP_NUM_TASKS", "WORLD_SIZE")) > 1 and "SUBMITIT_EXECUTOR" not in os.environ:
        raise ValueError(
            f"-m was started {num} times side by side: start it once, without srun or torchrun; each job starts the "
            "processes that its strategy needs, or let hydra/launcher=submitit_slurm submit the jobs"
        )


def _num_of(*variables: str) -> int:
    """How many processes srun or torchrun started side by side; those that Lightning starts need no config."""
    return max(int(os.environ.get(name, 1)) for name in variables)


def _continue_a_run(config: DictConfig) -> bool:
    """`ckpt=auto|last`: go on in the newest folder that trains the same; `auto` starts afresh where there is none.

    Returns whether there is one.
    """
    if config.ckpt not in ("auto", "last"):
        return False
    root = Path(config.output_root)
    run = find_run(root, training_key(config))
    if run is not None:
        config.run_dir = str(run.path)
    elif config.ckpt == "last":
        raise ValueError(
            f"ckpt=last found no run with these training settings below {root}: use ckpt=auto to start one, "
            "or ckpt=PATH for a certain checkpoint"
        )
    return run is not None


def _share_training(config: DictConfig, sweep: Path | None) -> None:
    """Jobs of a sweep that differ only in training-free keys train once: later ones measure the first's checkpoint."""
    if sweep is not None and config.trained_run is None:
        finished = find_run(sweep, training_key(config), trained=True)
        is_itself = finished is not None and finished.path.absolute() == Path(config.run_dir).absolute()
        config.trained_run = None if finished is None or is_itself else str(finished.path.absolute())


def _check_same_training(config: DictConfig) -> None:
    """A run starts from what its folder has, so the folder of another training is refused unless `ckpt` asks for it."""
    run = RunFolder(Path(config.run_dir))
    if config.ckpt is None and run.origin_file.exists() and run.origin().get("training_key") != training_key(config):
        raise ValueError(
            f"run_dir={run.path} holds a run with other training settings, whose checkpoints would be gone on with: "
            f"choose another folder, or add ckpt={run.path} where that is meant"
        )


def _take_from_run(config: DictConfig) -> None:
    """Commands on a run keep its sampler but for what is said: `ssc=` changes its scale, `sampler=` all of it."""
    if OmegaConf.is_missing(config, "run"):
        config.run = str(_run_with(config.checkpoint))
    trained = RunFolder(_existing_run(Path(config.run))).config()
    config.run = str(Path(config.run).absolute())
    overrides = list(HydraConfig.get().overrides.task)
    chosen = {override.split("=")[0] for override in overrides}
    if "sampler" not in chosen:
        said = OmegaConf.from_dotlist([override for override in overrides if override.startswith("sampler.")])
        scale = {key: config.sampler[key] for key in ("s0", "s1", "profile")} if "ssc" in chosen else {}
        config.sampler = OmegaConf.merge(trained.sampler, scale, said.get("sampler", {}))
    if config.get("name", "") is None:
        config.name = trained.get("name")


def _run_with(checkpoint: str | None) -> Path:
    """The folder of the run that a checkpoint lies in."""
    if checkpoint is None:
        raise ValueError(
            "run is needed: the folder of a training run, as in run=outputs/digits_fm/<date>, or checkpoint=FILE in it"
        )
    run = Path(checkpoint).absolute().parent.parent
    if not RunFolder(run).config_file.exists():
        raise ValueError(
            f"{checkpoint} lies in no run's folder: add run=FOLDER, or make a run of published weights by "
            f"`python -m flowexp.adopt file={checkpoint} +experiment=NAME`"
        )
    return run


def _existing_run(path: Path) -> Path:
    """`path`; raises ValueError with the nearest run beside it where there is no such folder."""
    if not path.exists():
        beside = next(parent for parent in path.absolute().parents if parent.exists())
        known = [config.parent for depth in ("*", "*/*") for config in beside.glob(f"{depth}/config.yaml")]
        names = {str(run.relative_to(beside)): run for run in known}
        hint = nearest(str(path.absolute().relative_to(beside)), names)
        raise ValueError(f"there is no run {path}{hint or ': give the folder that a training run printed at its end'}")
    return path


__all__ = ["COMMANDS", "config_folder", "main", "open_door"]

if __name__ == "__main__":
    sys.exit(main())
