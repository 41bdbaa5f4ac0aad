"""What a sweep says while it runs: the settings of each job before it begins, and what was submitted to a cluster."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from hydra.core.override_parser.types import ChoiceSweep, Override

from flowexp.cli.overrides import key_of, last_of, read
from flowexp.cli.sweeps.settings import jobs_of

_SWEEP = "FLOWEXP_SWEEP"  # variable with how many jobs there are and what is swept: a launcher may start processes
_JOB, _GROUP = "FLOWEXP_JOB", "FLOWEXP_JOBS_OF"  # of a job: its swept settings, and the folder of its sweep


@contextmanager
def announced(overrides: Sequence[str]) -> Iterator[None]:
    """Within it `tell` knows the sweep, and jobs that submitit submits are told with the place of their logs."""
    swept = [each.key_or_group for each in read(overrides) if each.is_sweep_override() and not _is_single(each)]
    total = 0 if last_of("hydra/sweeper", overrides) else len(jobs_of(overrides))  # an optimiser ends when it likes
    os.environ[_SWEEP] = json.dumps({"total": total, "swept": swept})
    launcher = last_of("hydra/launcher", overrides)
    try:
        with _told_of_submissions(str(launcher.value()) if launcher else ""):
            yield
    finally:
        os.environ.pop(_SWEEP, None)


def tell(number: int, overrides: Sequence[str]) -> None:
    """Prints `job 3 of 12: T_min=50`, on stderr, where the bars are. number: from 0, as in the sweep's folder."""
    total = _of_sweep().get("total")
    of = f" of {total}" if total else ""
    print(f"\njob {number + 1}{of}: {job_words(overrides) or 'no settings'}", file=sys.stderr, flush=True)


def job_words(overrides: Sequence[str]) -> str:
    """`T_min=50, seed=1`: the settings of a job that are swept, by the last part of their keys; else all of them."""
    swept = _of_sweep().get("swept")
    chosen = [each for each in overrides if not swept or key_of(each) in swept]
    return ", ".join(f"{key_of(each).rpartition('.')[2]}={each.partition('=')[2]}" for each in chosen)


def environment_of_job(sweep: Path, overrides: Sequence[str]) -> dict[str, str]:
    """The variables by which a job knows what it is among the others, for the names of its W&B run."""
    return {_JOB: job_words(overrides), _GROUP: "/".join(sweep.parts[-2:])}


def of_this_job() -> tuple[str, str | None]:
    """The swept settings of this process's job and the folder of its sweep; an empty text and None of a single run."""
    return os.environ.get(_JOB, ""), os.environ.get(_GROUP)


def _is_single(override: Override) -> bool:
    """Whether it is `choice(x)`, which sets a key job by job."""
    value = override.value()
    return isinstance(value, ChoiceSweep) and len(value.list) == 1


def _of_sweep() -> dict[str, Any]:
    sweep: dict[str, Any] = json.loads(os.environ.get(_SWEEP, "{}"))
    return sweep


@contextmanager
def _told_of_submissions(launcher: str) -> Iterator[None]:
    """submitit is silent until the last of its jobs has ended, and Hydra takes no launcher of another class."""
    if not launcher.startswith("submitit"):
        yield
        return
    try:
        from submitit import AutoExecutor
    except ImportError:  # Hydra says which package is missing
        yield
        return
    executor: Any = AutoExecutor
    submit = executor.map_array

    def submit_and_tell(self: Any, *arguments: Any) -> Any:
        jobs = submit(self, *arguments)
        print(_submitted([(str(job.job_id), Path(job.paths.stdout)) for job in jobs]), file=sys.stderr, flush=True)
        return jobs

    executor.map_array = submit_and_tell
    try:
        yield
    finally:
        executor.map_array = submit


def _submitted(jobs: Sequence[tuple[str, Path]]) -> str:
    """`2 jobs submitted (1672, 1673); ...; logs: outputs/sweeps/DATE/.submitit/1672/1672_0_log.out, ...`."""
    logs = [os.path.relpath(log) for _, log in jobs]
    shown = logs if len(logs) <= 3 else [*logs[:2], "..."]
    ids = ", ".join(job for job, _ in jobs)
    return (
        f"{len(jobs)} jobs submitted ({ids}); this command waits for them, and ends with their table\n"
        f"logs: {', '.join(shown)}"
    )
