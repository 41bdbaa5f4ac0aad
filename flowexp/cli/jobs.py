"""`python -m flowexp.cli.jobs COMMAND FOLDER`: runs a job in FOLDER, with the config that `cli.launch` gives it."""

from __future__ import annotations

import importlib
import logging
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from flowexp.cli.composing import config_folder
from flowexp.cli.errors import sentence_for
from flowexp.cli.heap import keep_freed_memory
from flowexp.cli.quick_imports import quick_imports
from flowexp.cli.terminal import unbreakable
from flowexp.cli.trust import check_targets, use_parts
from flowexp.cli.validate import check_like
from flowexp.records.run_folder import CONFIG, RunFolder
from flowexp.training import signals

_SAID_IN_EVERY_RUN = (
    "GPU available",
    "TPU available",
    "HPU available",
    "💡",
    "Using bfloat16",
    "`Trainer.fit` stopped",
    "`weights_only`",
    "SLURM auto-requeueing",  # the signals are ours
)
_SAID_BY = (
    "pytorch_lightning.utilities.rank_zero",
    "lightning_fabric.utilities.rank_zero",
    "pytorch_lightning.trainer.connectors.signal_connector",
)


def main() -> int:
    """Runs one job, see `_run`; a bar that cannot be drawn, or a terminal that is gone, ends none."""
    with unbreakable():
        return _run()


def _run() -> int:
    """Runs the command line's job. Bad input ends in a sentence; what ends a job early is also written to `log.txt`.

    A job that is refused before it has begun leaves a folder that holds other work as it was, `log.txt` included.
    """
    _quiet()
    keep_freed_memory()
    command, run = sys.argv[1], RunFolder(Path(sys.argv[2]))
    is_new = not run.holds_work() and not _lies_in_a_run(run.path)
    try:
        config = _config(run)
        check_like(config, _defaults(command))
        use_parts(config.get("parts"))
        check_targets(config)
        with quick_imports():
            importlib.import_module("flowexp.cli.assembly.building")  # torch, with which it takes seconds
            work = importlib.import_module(f"flowexp.{command}")
        signals.work_begins()
        if "figure" in config:
            importlib.import_module("flowexp.records.figures").also_save_as(config.figure.format, config.figure.width)
        work.run(config, run)
    except (KeyboardInterrupt, SystemExit) as stop:
        return _say_where_it_stopped(stop, command, run)
    except Exception as error:
        log = _write_log(run) if is_new or run.has_begun else None
        sentence = _sentence(error, command)
        if sentence is None or os.environ.get("HYDRA_FULL_ERROR") == "1":
            raise
        trace = "HYDRA_FULL_ERROR=1 shows the trace" if log is None else f"the trace is in {log}"
        print(f"error: {sentence}\n({trace})", file=sys.stderr)
        return 2
    finally:
        if not run.has_begun:
            _remove_if_empty(run.path)
    return 0


def _config(run: RunFolder) -> DictConfig:
    """What `flowexp.cli.launch` gives to this process, or to the first of several; else that of the folder."""
    if (text := os.environ.get(CONFIG)) is None:
        return run.config()
    config = OmegaConf.create(text)
    assert isinstance(config, DictConfig)
    return config


def _lies_in_a_run(folder: Path) -> bool:
    """Whether it is where a command writes what it measures of a run."""
    return any((above / "run.json").exists() for above in folder.absolute().parents[:3])


def _remove_if_empty(folder: Path) -> None:
    """Removes the folder of a job that did nothing, and that of its kind where it was the first of it in a run."""
    for place in (folder, *folder.parents[:2]):
        if _lies_in_a_run(place):
            with suppress(OSError):
                place.rmdir()


def _write_log(run: RunFolder) -> Path:
    log = run.path / f"log{_rank_suffix()}.txt"
    with suppress(OSError), log.open("a", encoding="utf-8") as file:  # of a full disk, which is then the error itself
        file.write(traceback.format_exc())
    return log


def _defaults(command: str) -> dict[str, Any]:
    """The keys of the command with the values of its yaml."""
    defaults = OmegaConf.to_container(OmegaConf.load(config_folder() / f"{command}.yaml"))
    assert isinstance(defaults, dict)
    return {str(key): value for key, value in defaults.items()}


def _say_where_it_stopped(stop: BaseException, command: str, run: RunFolder) -> int:
    """On the first process, print where a stopped job has left its work. Returns the exit code."""
    causes = (stop, stop.__context__)  # Lightning exits with 1 at a second Ctrl-C
    by_keyboard = any(isinstance(cause, KeyboardInterrupt) for cause in causes)
    asked = stop.code if isinstance(stop, SystemExit) and not by_keyboard else 128 + signal.SIGINT
    code = asked if isinstance(asked, int) else int(asked is not None)
    if code and not _rank_suffix():
        hint = "; the same command with ckpt=auto continues from its newest checkpoint" if command == "train" else ""
        print(f"\nstopped: {run.path}{hint}", file=sys.stderr)
    return code


def _quiet() -> None:
    """Hides messages of Lightning that appear in every run and need no action."""
    warnings.showwarning = _show_warning
    warnings.filterwarnings("ignore", message=".*LeafSpec.*")
    warnings.filterwarnings("ignore", message=".*Checkpoint directory .* exists and is not empty.*")  # resumed
    warnings.filterwarnings(
        "ignore", message=".*could not find the monitored key.*"
    )  # not measured yet; names are checked
    warnings.filterwarnings("ignore", message=".*smaller than the logging interval.*")
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*returned a view tensor.*")  # FSDP; nothing is changed in place here
    warnings.filterwarnings("ignore", message=".*torch.jit.script.*")  # of torch, for the Jacobian
    for name in _SAID_BY:
        logging.getLogger(name).addFilter(lambda record: not record.getMessage().startswith(_SAID_IN_EVERY_RUN))


def _show_warning(message: Warning | str, *_: Any, **__: Any) -> None:
    """A line of its own above the bars that are open."""
    from tqdm import tqdm

    tqdm.write(f"warning: {message}", file=sys.stderr)


def _sentence(error: Exception, command: str) -> str | None:
    from flowexp.objectives import NonFiniteGradientError
    from flowexp.training.checkpoints import CheckpointError

    if isinstance(error, NonFiniteGradientError | CheckpointError):
        return str(error)
    return sentence_for(error, command)


def _rank_suffix() -> str:
    rank = int(os.environ.get("LOCAL_RANK", 0))
    return f"_rank{rank}" if rank else ""


if __name__ == "__main__":
    sys.exit(main())
