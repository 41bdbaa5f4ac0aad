"""How runs are found again: those below a folder, those that train the same. Imports no torch."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

from flowexp.records.run_folder import RunFolder, read_tolerantly, warn

_PARTS_OF_A_RUN = ("checkpoints", "csv", "measurements", "ssc_features", "wandb")  # no run lies in them


def runs_below(root: Path) -> list[RunFolder]:
    """All folders below `root` in which something was trained or adopted, the newest first; links are followed."""
    found: dict[str, Path] = {}
    for folder in folders_below(root):
        if (folder / "run.json").exists() or ((folder / "config.yaml").exists() and (folder / "checkpoints").exists()):
            found.setdefault(os.path.realpath(folder), folder)
    return [RunFolder(folder) for folder in sorted(found.values(), key=_changed, reverse=True)]


def folders_below(root: Path) -> Iterator[Path]:
    """`root` and the folders below it, through links too, each once; what lies in a run's checkpoints is left out."""
    above = {os.path.realpath(folder) for folder in root.absolute().parents}
    seen: set[str] = set()
    for place, folders, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()  # a link into a folder of this walk, or back to where it lies
            continue
        seen.add(real)
        parts = _PARTS_OF_A_RUN if "run.json" in files else ()
        links = {name for name in folders if os.path.islink(os.path.join(place, name))}
        folders[:] = [
            name
            for name in sorted(folders, key=lambda name: (name in links, name))  # the folder itself before a link to it
            if name not in parts and not (name in links and os.path.realpath(os.path.join(place, name)) in above)
        ]
        yield Path(place)


def _changed(folder: Path) -> float:
    """When the work in a folder began."""
    for name in ("config.yaml", "run.json"):
        with suppress(OSError):
            return (folder / name).stat().st_mtime
    return 0.0


def runs_that_train(root: Path, key: str) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """The runs of `trainings_below` that train what `key` names."""
    return ((run, origin) for run, origin in trainings_below(root) if origin.get("training_key") == key)


def trainings_below(root: Path) -> Iterator[tuple[RunFolder, dict[str, Any]]]:
    """All trainings below `root`, the newest first, each with its `run.json`; without adopted weights.

    A run whose record cannot be read is passed over with a warning.
    """
    for run in runs_below(root):
        try:
            origin = run.origin() if run.origin_file.exists() else {"training_key": run.trains()}
        except (OSError, ValueError) as error:
            warn(f"{_sentence(error)}: {run.path} is passed over")
        else:
            if "adopted" not in origin:
                yield run, origin


def _sentence(error: Exception) -> str:
    system = isinstance(error, OSError) and error.strerror
    return f"cannot read {error.filename}, {error.strerror.lower()}" if system else str(error)  # type: ignore[attr-defined]


def find_run(root: Path, key: str, *, trained: bool = False, start: str | None = None) -> RunFolder | None:
    """The newest run below `root` that trains what `key` names, with its training finished if `trained`.

    Jobs of a sweep that measure another job's training have no checkpoint to continue from, and do not count.
    start: the checkpoint that a finished training must have begun from; None is new weights.
    """
    for run, origin in runs_that_train(root, key):
        if trained and (origin.get("began_from") != start or not run.has_trained()):
            continue
        if not shares_its_training(run):
            return run
    return None


def shares_its_training(run: RunFolder) -> bool:
    """Whether a run measures the weights of another; one whose config cannot be read is taken to have trained."""
    try:
        return run.config().get("trained_run") is not None
    except (OSError, ValueError):
        return not run.checkpoints.exists()


def summaries_of(run: Path, leaving_out: Path) -> dict[str, dict[str, Any]]:
    """What the run in a folder and its evaluations ended with, by their place in it, the newest first.

    A summary that cannot be read, or that lies below `leaving_out`, is passed over.
    """
    files = [file for below in (".", "evaluations/*", "evaluations/*/*") for file in run.glob(f"{below}/summary.json")]
    found: dict[str, dict[str, Any]] = {}
    for file in sorted(files, key=lambda file: file.stat().st_mtime, reverse=True):
        if leaving_out.absolute() not in file.absolute().parents and (summary := read_tolerantly(file)):
            found[_place_in(run, file.parent)] = summary
    return found


def _place_in(run: Path, folder: Path) -> str:
    return "its training" if folder == run else str(folder.relative_to(run))
