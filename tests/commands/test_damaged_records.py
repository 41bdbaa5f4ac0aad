"""A run folder in which a power cut, a disk or an editor has left something else: a sentence or a shrug, no trace."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from flowexp.cli.recipes import read_recipe
from flowexp.cli.recipes import runs as recipes
from flowexp.cli.sweeps.table import JobResult, print_table
from flowexp.records.files import atomic
from flowexp.records.keys import measuring_key, training_key
from flowexp.records.recording import read_history
from flowexp.records.run_folder import RunFolder
from flowexp.records.search import summaries_of
from flowexp.training.checkpoints.folder import prepare

pytestmark = pytest.mark.slow

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "flipped": lambda content: content[: len(content) // 3] + b"\x9b" + content[len(content) // 3 + 1 :],
    "garbage": lambda content: bytes(range(256)) * 4,
    "missing": lambda content: None,
    "list": lambda content: b"[1, 2]\n",
    "list of lines": lambda content: b'[1, 2]\n{"name": 3}\n"word"\n7\n',
}
NANO = (
    "data.train_size=64", "data.batch_size=16", "+backbone.depth=1", "+backbone.width=16", "+backbone.heads=2",
    "trainer.max_steps=2", "trainer.accelerator=cpu", "trainer.precision=32-true", "progress_bar=false",
    "callbacks=noise_levels", "callbacks.noise_levels.num_images=16",
)  # fmt: skip


@pytest.fixture(scope="module")
def whole(shell) -> Path:
    shell.here("train", *NANO, "run_dir=to_damage").succeeded()
    return shell.folder / "to_damage"


@pytest.fixture
def run(whole: Path, workdir: Path) -> Path:
    """A copy in an output root of its own."""
    shutil.copytree(whole, workdir / "outputs/R")
    return workdir / "outputs/R"


def damage(path: Path, kind: str) -> None:
    content = DAMAGES[kind](path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("kind", ["empty", "half", "missing", "list"])
@pytest.mark.parametrize("file", ["config.yaml", "trained.json", "summary.json"])
def test_a_damaged_record_is_made_whole_by_going_on(run: Path, in_process, whole: Path, file: str, kind: str):
    damage(run / file, kind)
    assert in_process("train", *NANO, "ckpt=auto", "run_dir=outputs/R") == 0
    folder, other = RunFolder(run), RunFolder(whole)
    assert training_key(folder.config()) == training_key(other.config()) and folder.trained_step() == 2
    assert folder.summary()["scalars"] == other.summary()["scalars"] != {}


@pytest.mark.parametrize("kind", DAMAGES)
def test_the_history_loses_only_what_is_damaged(run: Path, kind: str):
    entries = read_history(run)
    with (run / "measurements.jsonl").open("ab") as file:
        file.write(DAMAGES[kind](json.dumps(entries[0]).encode()) or b"")
    assert read_history(run) == entries != []


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_summary_is_none(run: Path, kind: str):
    damage(run / "summary.json", kind)
    assert RunFolder(run).summary() == {} == summaries_of(run, leaving_out=run / "evaluations/x")


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
def test_a_damaged_note_of_a_job_is_a_row_that_says_so(run: Path, kind: str, capsys):
    sweep = run.parent / "sweep"
    for job in ("0", "1"):
        JobResult(run=str(run), overrides=[f"seed={job}"], exit_code=0).write(sweep / job)
    damage(sweep / "1/job.json", kind)
    assert print_table(sweep) == 1
    printed = capsys.readouterr()
    assert "finished" in printed.out and "refused" in printed.out
    assert f"{sweep / '1/job.json'} is" in printed.err and "start the job again" in printed.err


def test_a_job_that_failed_shows_no_numbers_of_an_earlier_time(run: Path):
    assert JobResult(str(run), [], exit_code=0).summary["scalars"]
    assert JobResult(str(run), [], exit_code=2).summary == {}


# --- recipes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
@pytest.mark.parametrize("file", ["config.yaml", "run.json", "summary.json", "trained.json"])
def test_recipes_pass_over_a_damaged_run(run: Path, monkeypatch, file: str, kind: str):
    monkeypatch.setattr(recipes, "RUNS", run.parent)
    config = RunFolder(run).config()
    shutil.copytree(run, whole := run.parent / "whole")
    os.utime(whole / "config.yaml", (1, 1))
    damage(run / file, kind)
    finished = recipes._finished(training_key(config), measuring_key(config))
    assert finished is not None
    assert finished.path == whole or file == "trained.json"


def test_a_recipe_names_the_damaged_run_that_it_was_given(run: Path):
    damage(run / "run.json", "half")
    with pytest.raises(ValueError, match=r"run\.json is damaged"):
        read_recipe("vd/fig05", [f"run={run}"])


def test_an_evaluation_of_fewer_steps_is_made_again(run: Path, monkeypatch):
    """The run has been trained on since: its number is that of other weights."""
    calls: list[Path] = []

    def evaluate(command: str, overrides: list[str]) -> None:
        folder = RunFolder(Path(overrides[-1].removeprefix("run_dir=")))
        atomic.write_json(folder.summary_file, {"step": RunFolder(run).trained_step(), "scalars": {}, "protocol": {}})
        calls.append(folder.path)

    monkeypatch.setattr(recipes, "call", evaluate)
    for _ in range(2):
        recipes.measurement_of(RunFolder(run), "evaluate", ["seed=1"])
    assert len(calls) == 1
    atomic.write_json(run / "trained.json", {"step": 4})
    recipes.measurement_of(RunFolder(run), "evaluate", ["seed=1"])
    assert len(calls) == 2


# --- sizes, and how threads wait -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("free", "text"), [(0, "0 bytes"), (1234, "1.2 kB"), (3_210_000, "3.2 MB"), (10**9, "1.0 GB")])
def test_room_is_told_in_a_unit_that_shows_it(workdir: Path, monkeypatch, free: int, text: str):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": free}))
    with pytest.raises(RuntimeError, match=f"need about 2.5 GB in .*, where {text} are left: make room"):
        prepare(workdir / "checkpoints", 2_500_000_000)


@pytest.mark.parametrize("chosen", [None, "OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"])
def test_waiting_threads_spin_for_a_short_time_unless_someone_chose_otherwise(
    in_process, monkeypatch, chosen: str | None
):
    for name in ("OMP_WAIT_POLICY", "GOMP_SPINCOUNT", "KMP_BLOCKTIME"):
        monkeypatch.delenv(name, raising=False)
    if chosen:
        monkeypatch.setenv(chosen, "1")
    monkeypatch.setattr("flowexp.train.run", lambda config, folder: None)
    assert in_process("train", "run_dir=x") == 0
    spin = os.environ.pop("GOMP_SPINCOUNT", None)
    assert spin == {None: "20000", "GOMP_SPINCOUNT": "1"}.get(chosen)
