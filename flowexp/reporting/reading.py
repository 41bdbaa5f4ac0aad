"""What a run has left in its folder, read for a page. Whatever is missing or damaged becomes a remark, not an error."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from flowexp.records.curves import Cells, read_cells, read_training
from flowexp.records.run_folder import RunFolder
from flowexp.records.verdict import Verdict


@dataclass(frozen=True)
class Measured:
    """One measurement at one step, as `Recorder` wrote it: `stem.json`, and `.csv` and `.png` where it has them.

    Arguments:
        verdicts: what its numbers show.
        about: what the table shows, and in which unit.
        maps: columns of the table worth a heat map over steps and noise levels, and what they are called.
    """

    name: str
    step: int
    scalars: dict[str, float]
    protocol: dict[str, Any]
    verdicts: tuple[Verdict, ...]
    stem: Path
    about: str = ""
    maps: Mapping[str, str] = field(default_factory=dict)

    @cached_property
    def rows(self) -> list[Cells]:
        """The table, each cell as the text of the CSV; empty where there is none or it cannot be read."""
        return read_cells(self.stem.with_suffix(".csv"))

    @property
    def picture(self) -> Path | None:
        """The picture's file, where it is whole."""
        return None if self.picture_size is None else self.stem.with_suffix(".png")

    @cached_property
    def picture_size(self) -> tuple[int, int] | None:
        """Width and height of the picture in pixels; None without a whole one."""
        return picture_size(self.stem.with_suffix(".png"))

    def is_empty(self) -> bool:
        """Whether nothing of it can be shown."""
        return not self.scalars and not self.rows and self.picture is None


@dataclass(frozen=True)
class Run:
    """All that one page shows of a run.

    Arguments:
        home: the folder of the training that was measured; for a training, `folder`.
        label: its name, distinct from those beside it.
        settings: `config.yaml` as text.
        origin: `run.json`: plan, versions, commit, machine, seed.
        summary: `summary.json`, empty while the run has not ended.
        measured: measurements by name and step.
        training: rows of the training curves by step.
        remarks: a sentence for everything that is missing or damaged.
        measures: whether this is an evaluation or a diagnosis of a run, not the run itself.
    """

    folder: Path
    home: Path
    label: str
    settings: str
    origin: dict[str, Any]
    summary: dict[str, Any]
    measured: tuple[Measured, ...]
    training: tuple[dict[str, float], ...]
    remarks: tuple[str, ...]
    measures: bool = False

    @property
    def kind(self) -> str:
        """What the folder holds: a run, or a diagnosis, an evaluation or another measurement of one."""
        if not self.measures:
            return "run"
        return {"diagnoses": "diagnosis", "evaluations": "evaluation"}.get(
            self.folder.resolve().parent.name, "measurement"
        )

    @property
    def evaluations(self) -> int:
        """How many evaluations and diagnoses of the run lie in its folder, each with numbers of its own."""
        return sum(1 for kind in ("evaluations", "diagnoses") for _ in self.folder.glob(f"{kind}/*/summary.json"))

    @property
    def names(self) -> list[str]:
        """The measurements' names, in the order in which they were first taken."""
        return list(dict.fromkeys(entry.name for entry in self.measured))

    def of(self, name: str) -> list[Measured]:
        """The measurements of one name by step."""
        return [entry for entry in self.measured if entry.name == name]

    @property
    def step(self) -> int | None:
        """The last step that something is known of; None where nothing is."""
        steps = [entry.step for entry in self.measured]
        return self.summary.get("step") or (max(steps) if steps else None)

    @property
    def verdicts_by_name(self) -> dict[str, list[Verdict]]:
        """The verdicts of each measurement's last step, by its name; under "" those of the summary alone."""
        measured = {name: list(self.of(name)[-1].verdicts) for name in self.names}
        known = {verdict for verdicts in measured.values() for verdict in verdicts}
        others = [verdict for verdict in read_verdicts(self.summary) if verdict not in known]
        return {name: list(dict.fromkeys(verdicts)) for name, verdicts in ({"": others} | measured).items() if verdicts}

    @property
    def verdicts(self) -> list[Verdict]:
        """All verdicts, those of the summary alone first."""
        return [verdict for verdicts in self.verdicts_by_name.values() for verdict in verdicts]


def read_run(folder: Path) -> Run:
    """One run, or one evaluation of a run. Raises ValueError where `folder` is neither."""
    run, remarks = RunFolder(folder), list[str]()
    config = _config_of(run)
    home = _home_of(folder, config)
    origin = read_json(home / "run.json", remarks, "plan, versions and machine are not known")
    summary = read_json(run.summary_file, remarks, "the run has not ended, or was stopped")
    return Run(
        folder=folder,
        home=home.resolve(),
        label=str(config.get("name") or folder.resolve().name),
        settings=run.config_file.read_text(),
        origin=origin,
        summary=summary,
        measured=tuple(_read_measurements(folder, remarks)),
        training=tuple(read_training(folder)),
        remarks=tuple(remarks),
        measures="run" in config,
    )


def _home_of(folder: Path, config: Any) -> Path:
    """The run that `folder` measured: that which it lies in, as it may have been moved, else that which it names."""
    around = folder.resolve().parent.parent
    if "run" not in config:
        return folder
    return around if (around / "run.json").is_file() else Path(str(config["run"]))


def pages_below(folder: Path) -> list[str]:
    """The pages of a run's diagnoses and evaluations, relative to its folder."""
    found = [page for kind in ("diagnoses", "evaluations") for page in sorted(folder.glob(f"{kind}/*/report.html"))]
    return [page.relative_to(folder).as_posix() for page in found]


def _config_of(run: RunFolder) -> Any:
    if not run.path.exists():
        raise ValueError(f"there is no folder {run.path}: give the folder that a training run printed at its end")
    try:
        return run.config()
    except ValueError:
        raise
    except Exception as error:  # whatever YAML's parser raises
        raise ValueError(f"{run.config_file} cannot be read as YAML: {' '.join(str(error).split())}") from error


def _read_measurements(folder: Path, remarks: list[str]) -> Iterable[Measured]:
    """From the files of each step: a torn one costs itself only, and a step measured again has overwritten them."""
    entries = []
    for path in (folder / "measurements").glob("*/step_*.json"):
        content = read_json(path, remarks)
        if content and isinstance(content.get("step"), int):
            entries.append(_measured(content, path.with_suffix("")))
    first: dict[str, int] = {}
    for entry in sorted(entries, key=lambda entry: (entry.step, _written(entry))):
        first.setdefault(entry.name, len(first))
    return sorted(entries, key=lambda entry: (first[entry.name], entry.step))


def _measured(content: dict[str, Any], stem: Path) -> Measured:
    protocol = content.get("protocol") or {}
    scalars = {key: float(value) for key, value in (content.get("scalars") or {}).items() if _is_numeric(value)}
    name, about = str(content.get("name", stem.parent.name)), str(content.get("about", ""))
    return Measured(
        name, content["step"], scalars, protocol, read_verdicts(content), stem, about, _maps(content.get("maps"))
    )


def _maps(maps: Any) -> Mapping[str, str]:
    """The columns with their words; none where something else stands in their place."""
    return {str(column): str(words) for column, words in maps.items()} if isinstance(maps, dict) else {}


def _written(entry: Measured) -> float:
    return entry.stem.with_suffix(".json").stat().st_mtime


def _is_numeric(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def read_verdicts(content: Mapping[str, Any]) -> tuple[Verdict, ...]:
    """The verdicts of a measurement or a summary; none where something else stands in their place."""
    verdicts = content.get("verdicts")
    try:
        return tuple(map(Verdict.of, verdicts)) if isinstance(verdicts, list) else ()
    except (TypeError, ValueError):
        return ()


def read_json(path: Path, remarks: list[str], without: str = "") -> dict[str, Any]:
    """The object in a file; empty, with a remark, where it is missing or damaged. `without`: the consequence."""
    cost = f": {without}" if without else ""
    if not path.exists():
        remarks.append(f"{path.name} is missing{cost}")
        return {}
    try:
        content = json.loads(path.read_text())
    except ValueError:
        content = None
    if not isinstance(content, dict):
        remarks.append(f"{path.parent.name}/{path.name} is damaged{cost}")
        return {}
    return content


def picture_size(path: Path) -> tuple[int, int] | None:
    """Width and height of a picture in pixels; None where the file is missing or damaged."""
    from PIL import Image

    try:
        with Image.open(path) as picture:
            picture.verify()
            return picture.size
    except (OSError, SyntaxError, ValueError):  # Pillow's answers to a torn chunk
        return None
