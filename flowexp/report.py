"""`python -m flowexp.report run=FOLDER`: a page of a run's results: numbers, curves and pictures.

run=FOLDER             a training run, an evaluation or a sweep: writes report.html into it; run=last is the newest run
run=A,B or "run=X/*"   several runs side by side, as runs=[A,B] does: writes report.html here
output=FILE            writes the page there instead
pictures=12            at most so many pictures of each measurement
wandb=ENTITY/PROJECT   saves the W&B workspace of this code there instead (flowexp[dashboards])
"""

from __future__ import annotations

import sys
from glob import glob
from os.path import expanduser
from pathlib import Path
from typing import TYPE_CHECKING

from flowexp.cli.composing import Configs, config_folder
from flowexp.cli.errors import check_added, sentence_for
from flowexp.cli.named_runs import named_run
from flowexp.cli.overrides import is_override, listed, places, read, readable
from flowexp.cli.terminal import unbreakable
from flowexp.cli.validate import check_like
from flowexp.records.files import atomic

if TYPE_CHECKING:
    from omegaconf import DictConfig

_PATTERN = frozenset("*?[")  # letters that make a name stand for several


def run(config: DictConfig) -> str:
    """Write the page or workspace of `config` and return its place. Raises ValueError where nothing can be shown."""
    chosen = [name for name in ("run", "runs", "wandb") if config[name]]
    if len(chosen) != 1:
        got = " and ".join(chosen) or "neither"
        raise ValueError(f"give one of run=FOLDER, runs=[A,B] and wandb=ENTITY/PROJECT, got {got}")
    if config.wandb:
        from flowexp.reporting.workspace import save_workspace

        return save_workspace(str(config.wandb))
    folders = [named_run(str(folder)) for folder in _matching([*map(str, config.runs)]) or [config.run]]
    return str(write_report(folders, config.output and Path(config.output), config.pictures))


def _matching(names: list[str]) -> list[Path]:
    """The folders of some names, with those that a pattern such as outputs/digits_fm/* stands for, in their order.

    Raises ValueError for a pattern that no run or sweep matches.
    """
    folders: list[Path] = []
    for name in names:
        if Path(name).exists() or not _PATTERN & {*name}:
            folders.append(Path(name))
            continue
        matching = [Path(path) for path in sorted(glob(name)) if _holds_something(Path(path))]
        if not matching:
            raise ValueError(f"no run matches {name}: give folders that training runs printed at their end")
        folders += matching
    return folders


def _holds_something(folder: Path) -> bool:
    return any((folder / name).is_file() for name in ("config.yaml", "sweep.json"))


def _with_runs_as_lists(arguments: list[str]) -> list[str]:
    """`runs=A`, `run=A,B` and `run=A*` are `runs=[...]`; a folder's own name may have any characters."""
    return [_as_list(argument) for argument in arguments]


def _as_list(argument: str) -> str:
    key, _, text = argument.partition("=")
    is_there = Path(expanduser(text)).exists()
    if key not in ("run", "runs") or (key == "run" and is_there):
        return argument
    names = [expanduser(text)] if is_there else places(text)
    is_one = key == "run" and names == [text] and not _PATTERN & {*text}
    return argument if is_one else listed("runs", names)


def write_report(folders: list[Path], output: Path | None = None, most_pictures: int = 12) -> Path:
    """Writes the page of one or several runs, or of a sweep and each of its jobs. Returns its file.

    Raises ValueError where a folder is neither a run nor a sweep, or `pictures` is below 1.
    """
    from flowexp.records.job_table import is_sweep
    from flowexp.reporting.page import render_runs, render_sweep
    from flowexp.reporting.reading import pages_below
    from flowexp.reporting.side_by_side import read_runs
    from flowexp.reporting.sweep import read_sweep

    if most_pictures < 1:
        raise ValueError(f"pictures must be at least 1, got {most_pictures}")
    pages = pages_below(folders[0]) if len(folders) == 1 and output is None else []
    output = output or (folders[0] if len(folders) == 1 else Path()) / "report.html"
    if len(folders) == 1 and is_sweep(folders[0]):
        sweep = read_sweep(folders[0])
        for job in (job for job, page in sweep.pages.items() if page):
            write_report([folders[0] / job], None, most_pictures)
        return _write(output, render_sweep(sweep))
    return _write(output, render_runs(read_runs(folders), most_pictures, pages))


def _write(output: Path, page: str) -> Path:
    output = output / "report.html" if output.is_dir() else output
    atomic.write_text(output, page)
    return output


def main() -> int:
    """The command line. Returns the exit code."""
    with unbreakable():
        return _main(sys.argv[1:])


def _main(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help"):
        print(__doc__)
        return 0 if arguments else 2
    if arguments[0] == "--cfg":
        print((config_folder() / "report.yaml").read_text(), end="")
        return 0
    try:
        # no job's folder is made and no process started: a page takes seconds and belongs to its run
        for argument in arguments:
            if not is_override(argument):
                raise ValueError(f"{argument} is no setting: give run=FOLDER, or runs=[A,B] for several side by side")
        read(arguments := [*map(readable, _with_runs_as_lists(arguments))])
        check_added("report", arguments, Configs())
        config = Configs().compose("report", arguments)
        check_like(config, {"pictures": 12, "output": None, "wandb": None, "run": None})
        print(run(config))
    except Exception as error:
        sentence = sentence_for(error, "report", arguments)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())
