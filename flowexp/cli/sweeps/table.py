"""Sweeps: what each job of a Hydra multirun ended with, and the one table at the end."""

from __future__ import annotations

import sys
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

from flowexp.cli.overrides import key_of, read
from flowexp.cli.sweeps.shown import print_sweep
from flowexp.records.files import atomic
from flowexp.records.files.json_files import read_object
from flowexp.records.job_table import JobRow, JobTable
from flowexp.records.protocol_card import cards_of, keeps_apart
from flowexp.records.run_folder import RunFolder

swept_folders: list[Path] = []


class NoteSweep(Callback):
    """Hydra callback that notes the folder of a finished sweep for `flowexp.cli.launch`, which prints the table."""

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:
        swept_folders.append(Path(config.hydra.sweep.dir))


@dataclass(frozen=True)
class JobResult:
    """How one job of a sweep ended.

    Arguments:
        run: the folder it worked in, which with ckpt=auto may be that of an earlier sweep.
        overrides: of the command line, this job's values for those that are swept.
        exit_code: of its process.
        refusal: why it was not started; None where it was.
    """

    run: str
    overrides: list[str]
    exit_code: int
    refusal: str | None = None

    @classmethod
    def read(cls, folder: Path) -> JobResult:
        """Of a damaged note, that the job is to be started again."""
        try:
            return cls(**read_object(folder / "job.json"))
        except (ValueError, TypeError) as error:
            sentence = str(error) if isinstance(error, ValueError) else f"{folder / 'job.json'} is no note of a job"
            return cls(run=str(folder), overrides=[], exit_code=2, refusal=f"{sentence}; start the job again")

    def write(self, folder: Path) -> None:
        """Into the job's folder in the sweep's."""
        folder.mkdir(parents=True, exist_ok=True)
        atomic.write_json(folder / "job.json", asdict(self))

    @property
    def settings(self) -> dict[str, str]:
        return {key_of(text): _value_of(text) for text in self.overrides if "=" in text}

    @property
    def status(self) -> str:
        if self.exit_code == 0:
            return "finished"
        if self.refusal is not None:
            return "refused"
        log = ", see log.txt" if (Path(self.run) / "log.txt").exists() else ""
        return f"failed ({self.exit_code}){log}"

    @property
    def summary(self) -> dict[str, Any]:
        """What the job ended with; nothing where it failed, though its folder may hold what an earlier one did."""
        return RunFolder(Path(self.run)).summary() if self.exit_code == 0 else {}


def print_table(sweep: Path) -> int:
    """Prints and writes (`sweep.csv`, `sweep.json`) one row per job, and returns the exit code.

    The screen has what differs among the jobs, by short names and to three digits, as many numbers as it has room for,
    with the best of each marked. Numbers of one name and cards that differ in more than what is swept are warned of,
    and the reasons of refused jobs stand below.
    """
    jobs = {name: JobResult.read(sweep / name) for name in sorted(job_names(sweep), key=_job_number)}
    if not jobs:
        print(f"no job of the sweep {sweep} has ended", file=sys.stderr)
        return 1
    table = JobTable(tuple(_row(name, job) for name, job in jobs.items()))
    in_csv = table.write(sweep)
    print_sweep(table, in_csv)
    for refusal in dict.fromkeys(job.refusal for job in jobs.values() if job.refusal):
        refused = ", ".join(name for name, job in jobs.items() if job.refusal == refusal)
        print(f"error: job {refused}: {refusal}", file=sys.stderr)
    varied = set(table.settings) - set(table.shared)
    for sentence in keeps_apart({f"job {name}": job.summary for name, job in jobs.items()}, varied=varied):
        print(f"warning: {sentence}", file=sys.stderr)
    return 1 if not all(row.is_finished for row in table.rows) else 0


def _row(name: str, job: JobResult) -> JobRow:
    summary = job.summary
    numbers = {key: value for key, value in summary.get("scalars", {}).items() if isinstance(value, int | float)}
    cards = {key: card for key, card in cards_of(summary).items() if key in numbers}
    return JobRow(name, job.status, job.exit_code == 0, job.settings, numbers, cards)


def job_names(sweep: Path) -> list[str]:
    """The jobs' folders in that of a sweep, however deep they lie, as names below it; not those of sweeps inside."""
    found = [path.parent.relative_to(sweep) for path in sweep.rglob("job.json")]
    return [str(folder) for folder in found if not any(parent in found for parent in folder.parents)]


def _value_of(override: str) -> str:
    """The value of an override as text, without the quotes of Hydra's grammar."""
    value = read([override])[0].value()
    return value if isinstance(value, str) else override.partition("=")[2]


def _job_number(name: str) -> tuple[int, str]:
    return (int(name), "") if name.isdigit() else (1 << 30, name)
