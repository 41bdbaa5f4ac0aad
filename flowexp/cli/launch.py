"""The door between a command line and a job: Hydra composes a config, and this process or a fresh one runs it.

Every job reads its resolved config from its environment: a single one in the process that composed it, those of a sweep
each in its own. No Hydra and no `-m` is left in its command line, and processes which Lightning starts beside it (DDP)
inherit the same: a sweep cannot give two ranks different settings (hydra #2070, Lightning #11300). The run's folder
gets the config when the work really begins: a job that is refused, or finds another at work, leaves the folder as it
was. torch is imported by the job, not here: `--help` is quick.
"""

from __future__ import annotations

import importlib
import os
import re
import shlex
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, nullcontext
from datetime import datetime
from pathlib import Path

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from flowexp.cli.commands import COMMANDS, DEMO, WITHOUT_A_JOB, overview, version
from flowexp.cli.completion import complete
from flowexp.cli.composing import Configs, config_folder, run_once
from flowexp.cli.errors import check_added, sentence_for
from flowexp.cli.help import help_page
from flowexp.cli.named_runs import with_runs_named
from flowexp.cli.overrides import folder as folder_override
from flowexp.cli.overrides import in_any_sampler, is_override, key_of, last_of, read, readable
from flowexp.cli.resolve import OF_A_RUN, check_sweep, settle, unused_folder
from flowexp.cli.sweeps import jobs as sweep_jobs
from flowexp.cli.sweeps.settings import check_subfolders, check_words, is_sweep, per_job
from flowexp.cli.sweeps.table import JobResult, print_table, swept_folders
from flowexp.cli.terminal import unbreakable
from flowexp.cli.threads import share_of_job, short_spin
from flowexp.cli.trust import vouched_for
from flowexp.flow.choices import nearest
from flowexp.records.origin import SAID
from flowexp.records.run_folder import CONFIG, RunFolder
from flowexp.training import signals

_TRAINS = ("train", "adopt")  # commands whose config has the settings of a training
_SWEPT = {"sample": "samples", "evaluate": "evaluations", "diagnose": "diagnoses", "export": "exports"}
_GIVEN_BY_A_LAUNCHER = (
    "RANK", "LOCAL_RANK", "NODE_RANK", "GROUP_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT",
)  # fmt: skip


def main() -> int:
    """The console script: `flowexp train ...` is `python -m flowexp.train ...`."""
    command, *others = sys.argv[1:] or ["--help"]
    if command in ("-sc", "--shell-completion"):
        return complete(sys.argv[1:], COMMANDS, open_door, ("demo", *WITHOUT_A_JOB))
    if command in ("-h", "--help") or "--version" in (command, *others):
        print(overview() if "--version" not in (command, *others) else version())
        return 0
    if command == "demo":
        command, others = "reproduce", [*DEMO, *others]
    if command not in (names := (*COMMANDS, *WITHOUT_A_JOB)):
        hint = nearest(command, [*names, "demo"])
        print(f"error: there is no command {command}{hint or '.'} `flowexp --help` lists them", file=sys.stderr)
        return 2
    sys.argv = [command, *others]
    return int(importlib.import_module(f"flowexp.{command}").main())


def open_door(command: str, arguments: Sequence[str]) -> int:
    """Composes the config of `command` from `arguments` and runs it: once, or once for each job of a sweep."""
    with unbreakable():
        return _open_door(command, arguments)


def _open_door(command: str, arguments: Sequence[str]) -> int:
    shows_errors_in_full = os.environ.get("HYDRA_FULL_ERROR") == "1"
    # argparse, which reads them for Hydra, gives up on key=value both before and after an option
    ordered = sorted(arguments, key=is_override)
    sys.argv = [f"flowexp.{command}", *ordered]
    configs = Configs()
    if "--version" in arguments:
        print(version())
        return 0
    try:
        ordered = _with_yamls_of_parts(ordered)
        configs = Configs.of(ordered)
        ordered = _as_hydra_reads_them(command, ordered, configs)
        overrides = [*filter(is_override, ordered)]
        sys.argv = [f"flowexp.{command}", *ordered]
        if {"-h", "--help"} & {*arguments}:
            print(help_page(command, overrides, configs))
            return 0
        check_added(command, overrides, configs)
        if sweeps := is_sweep(ordered):
            signals.work_begins()
            check_sweep(overrides)
            sys.argv += _folder_of_sweep(command, overrides, configs)
            check_subfolders(command, overrides, configs)
        with _alone_in_its_folder(sys.argv[1:]), sweep_jobs.announced(overrides) if sweeps else nullcontext():
            job = _pass_through(command)
    except Exception as error:
        sentence = None if shows_errors_in_full else sentence_for(error, command, ordered, configs)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("\nstopped by Ctrl-C; jobs that have begun keep their folders", file=sys.stderr)
        return 128 + signal.SIGINT
    if swept_folders:
        return print_table(swept_folders.pop())
    return _become_job(command, *job) if job else 0


def _with_yamls_of_parts(arguments: list[str]) -> list[str]:
    """The arguments with `--config-dir=FOLDER/conf` for `parts=FOLDER`, where there is one and no other is named."""
    given = [readable(word) for word in arguments if is_override(word) and key_of(word) == "parts"]
    folder = read(given)[-1].value() if given else None
    if not isinstance(folder, str) or not Path(folder, "conf").is_dir() or Configs.of(arguments).own:
        return arguments
    return [f"--config-dir={Path(folder, 'conf')}", *arguments]


def _as_hydra_reads_them(command: str, arguments: Sequence[str], configs: Configs) -> list[str]:
    """The arguments with the quotes that Hydra's grammar needs. Raises ValueError for one that is no argument."""
    sweeps = is_sweep(arguments)
    check_words([argument for argument in arguments if not is_override(argument)])
    spelt = [accept_averages(command, _accept_both_spellings(word)) for word in filter(is_override, arguments)]
    overrides = [readable(word, sweeps) for word in fill_empty_groups(spelt)]
    read(overrides)
    overrides = with_runs_named(overrides)
    if command in OF_A_RUN:
        overrides = [*map(in_any_sampler, overrides)]
    if sweeps:
        overrides = per_job(overrides, configs)
    return [*(argument for argument in arguments if not is_override(argument)), *overrides]


def _folder_of_sweep(command: str, overrides: Sequence[str], configs: Configs) -> list[str]:
    """Makes the folder of a sweep, which no other has: one that starts in the same second gets another.

    A sweep over runs has one folder too: that of each job would lie in its run's, and the table nowhere.
    """
    if (given := last_of("hydra.sweep.dir", overrides)) is not None:
        if given.value() in ("", None):
            raise ValueError(f"{given.input_line} names no folder: give one, or leave it out")
        return []
    of_folder = [
        override for override in read(overrides) if override.key_or_group in ("run", "checkpoint", "output_root")
    ]
    if any(override.is_sweep_override() for override in of_folder):
        default = Path("outputs", _SWEPT.get(command, "sweeps"), f"sweep_{datetime.now():%Y-%m-%d_%H-%M-%S}")
    else:
        said = [str(override.input_line) for override in of_folder]
        default = Path(configs.compose(command, said, with_hydra=True).hydra.sweep.dir)
    return [folder_override("hydra.sweep.dir", unused_folder(default))]


@contextmanager
def _alone_in_its_folder(arguments: Sequence[str]) -> Iterator[None]:
    """Keeps another sweep out of the folder that `hydra.sweep.dir` names: each would write over the other's jobs."""
    given = last_of("hydra.sweep.dir", filter(is_override, arguments)) if is_sweep(arguments) else None
    if given is None:
        yield
        return
    sweep = RunFolder(Path(str(given.value())))
    sweep.path.mkdir(parents=True, exist_ok=True)
    with ExitStack() as held:
        try:
            held.enter_context(sweep.held())
        except ValueError as error:
            raise ValueError(
                f"another sweep works in {sweep.path}: wait until it ends, or name another folder by hydra.sweep.dir"
            ) from error
        yield


def _pass_through(command: str) -> tuple[Path, dict[str, str]] | None:
    """Let Hydra compose the command line in `sys.argv`, and run the jobs of a sweep.

    Returns the folder of a single run, and the environment of its job.
    """
    jobs: list[tuple[Path, dict[str, str]]] = []
    refusals: list[Exception] = []

    def task(config: DictConfig) -> float | None:
        return _through(command, config, jobs, refusals)

    with _errors_as_exceptions():
        if is_sweep(sys.argv) or not all(map(is_override, sys.argv[1:])):  # an option of Hydra's is Hydra's to read
            hydra.main(version_base="1.3", config_path=str(config_folder()), config_name=command)(task)()
        else:
            run_once(command, sys.argv[1:], task)
    if refusals:
        raise refusals[0]
    return jobs[0] if jobs else None


@contextmanager
def _errors_as_exceptions() -> Iterator[None]:
    """Hydra prints errors itself and exits, unless its variable for full traces is set."""
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
    argument = re.sub(r"^\++experiment=", "experiment=", argument)
    return re.sub(r"^(\+{0,2}(?:objective|terms\.\w+)\.)lambda=", r"\1lam=", argument)


def fill_empty_groups(overrides: list[str]) -> list[str]:
    """`~optimizer '+optimizer={...}'` and `~data '+data={...}'` fill an empty choice, `conf/GROUP/_own.yaml`.

    The group itself stays: defaults of a dataset are chosen by the names of these groups. A run on data of one's own is
    named by its class.
    """
    for group in ("optimizer", "data"):
        if f"~{group}" in overrides:
            named = _named_by_its_class(overrides) if group == "data" else []
            filled = [re.sub(rf"^\+{group}=", f"++{group}=", each) for each in overrides]
            overrides = [f"{group}=_own" if each == f"~{group}" else each for each in filled] + named
    return overrides


def _named_by_its_class(overrides: list[str]) -> list[str]:
    """`name=` for a run whose data are `+data={_target_:rings.Rings,...}`, unless it has one."""
    given = [readable(each) for each in overrides if each.startswith("+data=")]
    content = read(given)[-1].value() if given else None
    if not isinstance(content, dict) or any(key_of(each) == "name" for each in overrides):
        return []
    own_class = str(content.get("_target_", "own")).rpartition(".")[2]
    return [f"name={own_class.lower()}_${{hydra:runtime.choices.objective}}"]


def accept_averages(command: str, argument: str) -> str:
    """`ema=0.999`, `ema=[0.999,0.9999]` and `ema=none` of a training are its `ema.decay`.

    A command on a run chooses by the same key among the averages that the run has.
    """
    match = re.fullmatch(r"\+{0,2}ema(?:\.decay)?=([^{].*)", argument) if command in _TRAINS else None
    return f"ema.decay={re.sub('none|null', '[]', match[1])}" if match else argument


def _through(
    command: str, config: DictConfig, jobs: list[tuple[Path, dict[str, str]]], refusals: list[Exception]
) -> float | None:
    """What Hydra calls with each composed config: makes the run folder, and in a sweep runs the job.

    Of a single run, `refusals` takes the complaint: Hydra would print a line before it.
    """
    if HydraConfig.get().mode == RunMode.MULTIRUN:
        return _run_swept_job(command, config)
    try:
        config, run = _run_folder(command, config, sweep=None)
        jobs.append((run.path, _environment(command, config)))
    except Exception as error:
        refusals.append(error)
    return None


def _run_folder(command: str, config: DictConfig, sweep: Path | None) -> tuple[DictConfig, RunFolder]:
    """The settled config of a run, and its folder, which is made: what it holds is left to the job."""
    config = settle(command, config, sweep)
    run = RunFolder(Path(config.run_dir).absolute())
    run.path.mkdir(parents=True, exist_ok=True)
    return config, run


def _environment(command: str, config: DictConfig) -> dict[str, str]:
    """The environment of a job: its config, which no file has before the work begins, and the command line.

    Processes that Lightning starts beside it inherit both.
    """
    folders = [Path(source.path) for source in HydraConfig.get().runtime.config_sources if source.schema == "file"]
    vouched = vouched_for(HydraConfig.get().overrides.task, [each for each in folders if each != config_folder()])
    return {**short_spin(), **vouched, CONFIG: OmegaConf.to_yaml(config), SAID: _said(command)}


def _said(command: str) -> str:
    """The command line of this run; of a job of a sweep the one that makes it alone."""
    words = HydraConfig.get().overrides.task if HydraConfig.get().mode == RunMode.MULTIRUN else sys.argv[1:]
    return shlex.join(["python", "-m", f"flowexp.{command}", *words])


def _run_swept_job(command: str, config: DictConfig) -> float | None:
    """One job of a sweep. A failure is noted, not raised: the other jobs go on."""
    own, overrides = Path(HydraConfig.get().runtime.output_dir), list(HydraConfig.get().overrides.task)
    sweep_jobs.tell(int(HydraConfig.get().job.num), overrides)
    try:
        config, run = _run_folder(command, config, Path(HydraConfig.get().sweep.dir))
    except Exception as error:
        if (sentence := sentence_for(error, command)) is None:
            raise
        JobResult(run=str(own), overrides=overrides, exit_code=2, refusal=sentence).write(own)
        return None
    inherited = (*_GIVEN_BY_A_LAUNCHER, "HYDRA_FULL_ERROR")  # the latter is this door's, see _errors_as_exceptions
    environment = {key: value for key, value in os.environ.items() if key not in inherited}
    environment |= _environment(command, config)
    environment |= share_of_job(HydraConfig.get().launcher)
    environment |= sweep_jobs.environment_of_job(Path(HydraConfig.get().sweep.dir), overrides)
    code = _wait_for(subprocess.Popen(_job_command(command, run.path), env=environment))
    result = JobResult(run=str(run.path), overrides=overrides, exit_code=code)
    result.write(own)
    return _optimized(config.get("optimized_metric"), run, result.summary.get("scalars", {}))


def _optimized(metric: str | None, run: RunFolder, scalars: Mapping[str, float]) -> float | None:
    """The number of a job for the optimiser of a sweep; warns where the job has measured no such number."""
    if metric is not None and scalars and metric not in scalars:
        hint = nearest(metric, scalars) or f": it has {', '.join(scalars)}."
        print(f"warning: optimized_metric={metric} is no number of {run.path}{hint}", file=sys.stderr)
    return scalars.get(metric) if metric is not None else None


def _wait_for(job: subprocess.Popen[bytes]) -> int:
    """The exit code of a job. A signal to the sweep reaches the job, which saves its run, and then ends the sweep."""
    if threading.current_thread() is not threading.main_thread():  # of a launcher that runs jobs in threads
        return job.wait()
    asked: list[int] = []

    def pass_on(number: int, _frame: object) -> None:
        asked.append(number)
        job.send_signal(number)

    passed = [n for n in signals.SIGNALS if n != signal.SIGINT and signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, pass_on) for number in passed}
    try:
        code = job.wait()
    except KeyboardInterrupt:  # the job got Ctrl-C too, and saves its run
        job.wait()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if asked:
        raise SystemExit(128 + asked[0])
    return code


def _become_job(command: str, folder: Path, environment: dict[str, str]) -> int:
    """Runs the job in this process, which from here on is what `python -m flowexp.cli.jobs COMMAND FOLDER` starts.

    Lightning starts the other processes of DDP by the command line and the name of the main module, and as Hydra would
    where it finds Hydra at work.
    """
    os.environ.update(environment)  # before torch is imported: libgomp reads it then
    HydraConfig.instance().cfg = None
    GlobalHydra.instance().clear()
    jobs = importlib.import_module("flowexp.cli.jobs")
    sys.argv = [str(jobs.__file__), command, str(folder)]
    sys.modules["__main__"].__spec__ = jobs.__spec__
    return int(jobs.main())


def _job_command(command: str, folder: Path) -> list[str]:
    return [sys.executable, "-m", "flowexp.cli.jobs", command, str(folder)]


__all__ = ["COMMANDS", "config_folder", "main", "open_door"]

if __name__ == "__main__":
    sys.exit(main())
