"""A damaged file in a run's folder is named in a sentence, by every command that needs it, and stops no other."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from damage import DAMAGES, TRACE, Answer, Asked, assert_answered, damage

from flowexp import report
from flowexp.cli.sweeps.table import JobResult, print_table
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import list_checkpoints

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore::DeprecationWarning")]

NUM_STEPS = 4
TINY = (
    "name=tiny", "data=digits", "data.train_size=32", "data.batch_size=16", "+backbone.depth=1", "+backbone.width=16",
    "+backbone.heads=2", f"trainer.max_steps={NUM_STEPS}", "trainer.accelerator=cpu", "trainer.precision=32-true",
    "sampler.num_steps=1", "checkpoint.every_n_steps=2", "log_every_n_steps=1", "progress_bar=false",
)  # fmt: skip
MEASURED = (
    "callbacks=[noise_levels]", "callbacks.noise_levels.num_images=16", "callbacks.noise_levels.every_n_steps=2",
)  # fmt: skip
RUN = Path("outputs/tiny/run")
MEASUREMENT = "measurements/noise_levels/step_00000002"


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, in_this_process: Callable[..., int]) -> Path:
    """A folder with a finished run below `outputs`, of which each test damages a copy."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert in_this_process("train", *TINY, *MEASURED, f"run_dir={RUN}") == 0
        assert in_this_process("evaluate", f"run={RUN}", "callbacks=none", f"run_dir={RUN}/evaluations/one") == 0
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the finished run; the current folder is around it."""
    shutil.copytree(whole, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    return RUN


@pytest.fixture
def asked(in_this_process: Callable[..., int], capsys, caplog, monkeypatch: pytest.MonkeyPatch) -> Asked:
    def door(command: str, *arguments: str) -> int:
        if command != "report":
            return in_this_process(command, *arguments)
        monkeypatch.setattr(sys, "argv", ["flowexp.report", *arguments])
        return report.main()

    return Asked(door, capsys, caplog)


COMMANDS: dict[str, tuple[str, ...]] = {
    "sample": ("sample", f"run={RUN}", "num_samples=1", "device=cpu"),
    "evaluate": ("evaluate", f"run={RUN}", "callbacks=none", "device=cpu"),
    "diagnose": ("diagnose", f"run={RUN}", "callbacks=none", "device=cpu"),
    "guided": (
        "sample", f"run={RUN}", "num_samples=1", "device=cpu", f"guide={RUN}", "sampler.autoguidance_scale=2",
    ),
    "report": ("report", f"run={RUN}"),
    "side_by_side": ("report", f"runs=[{RUN},{RUN}/evaluations/one]", "output=page.html"),
    "resume": ("train", *TINY, "callbacks=none", f"run_dir={RUN}"),
    "auto": ("train", *TINY, "callbacks=none", "ckpt=auto"),
    "last": ("train", *TINY, "callbacks=none", "ckpt=last"),
    "from it": ("train", *TINY, "callbacks=none", f"ckpt={RUN}", "run_dir=other"),
    "another": ("train", *TINY, "callbacks=none", "ckpt=auto", "seed=1"),
    "measures": ("train", *TINY, *MEASURED, "ckpt=auto"),
}  # fmt: skip

# The files of a run, with the commands that read them: with a star those that cannot pass over one in silence. The
# first of a file meets every damage to it; all read it by the same function, so the others meet a damage of each kind.
READ_BY = {
    "config.yaml": "sample* auto guided* report* last evaluate diagnose resume",
    "run.json": "resume* auto* last* another* report*",
    "trained.json": "auto last",
    "summary.json": "report* evaluate* auto",
    "evaluations/one/summary.json": "evaluate",
    "evaluations/one/config.yaml": "side_by_side*",
    "measurements.jsonl": "auto report",
    f"{MEASUREMENT}.json": "report* measures",
    f"{MEASUREMENT}.csv": "measures report",
    "csv/version_0/metrics.csv": "auto report",
}
OF_EACH_KIND = (
    "one bit flipped",
    "a list",
    "missing",
)  # what cannot be read, what reads as something else, and nothing

CASES = [
    pytest.param(file, how, name.rstrip("*"), "*" in name, id=f"{file}, {how}, {name.rstrip('*')}")
    for file, readers in READ_BY.items()
    for place, name in enumerate(readers.split())
    for how in (DAMAGES if place == 0 else OF_EACH_KIND)
]


def answer_to(asked: Asked, name: str, of_measurements: bool = True) -> Answer:
    """What a command answers; of a report, with the words of its page."""
    words = COMMANDS[name]
    page = Path("page.html") if "output=page.html" in words else RUN / "report.html"
    if words[0] != "report":
        return asked(*words)
    if not of_measurements:  # their drawings take the most time
        shutil.rmtree(RUN / "measurements")
        shutil.rmtree(RUN / "csv")
    answer = asked(*words)
    return Answer(answer.code, answer.text + page.read_text(), answer.errors) if answer.code == 0 else answer


@pytest.mark.parametrize("file, how, name, must_name", CASES)
def test_a_damaged_record_is_named_or_does_no_harm(
    run: Path, asked: Asked, file: str, how: str, name: str, must_name: bool
):
    damage(run / file, how)
    answer = answer_to(asked, name, of_measurements="measurements" in file or "csv" in file)
    is_of_a_younger_run = how == "missing" and file != "config.yaml"
    if is_of_a_younger_run and answer.code == 2:
        assert len(answer.errors) == 1 and TRACE not in answer.text
    else:
        assert_answered(answer, run / file, must_name and not is_of_a_younger_run)
    assert [path.name for path in list_checkpoints(run / "checkpoints")] == ["step_00000002.ckpt", "step_00000004.ckpt"]
    if answer.code == 0 and name in ("auto", "last", "resume", "measures"):
        assert any(json.loads(path.read_text())["step"] == NUM_STEPS for path in Path("outputs").rglob("trained.json"))


@pytest.mark.parametrize("name", ["sample", "evaluate", "diagnose", "report"])
def test_a_run_without_any_record_but_its_config_and_checkpoints_is_still_measured(run: Path, asked: Asked, name: str):
    for file in READ_BY:
        if file != "config.yaml":
            damage(run / file, "empty")
    assert answer_to(asked, name).code == 0


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["sample", "auto"])
def test_the_checkpoint_before_a_damaged_one_is_taken_with_a_warning(run: Path, asked: Asked, how: str, name: str):
    newest = list_checkpoints(run / "checkpoints")[-1]
    damage(newest, how)
    answer = answer_to(asked, name)
    assert_answered(answer, newest, must_name=how != "missing")
    assert answer.code == 0


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("name", ["sample", "last"])
def test_without_a_whole_checkpoint_nothing_is_begun_anew(run: Path, asked: Asked, how: str, name: str):
    for path in list_checkpoints(run / "checkpoints"):
        damage(path, how)
    records = {file: (run / file).read_bytes() for file in ("run.json", "trained.json", "summary.json")}
    answer = answer_to(asked, name)
    assert answer.code == 2 and len(answer.errors) == 1 and "checkpoints" in answer.errors[0], answer.text
    assert {file: (run / file).read_bytes() for file in records} == records


@pytest.mark.parametrize("how", DAMAGES)
def test_a_given_checkpoint_that_is_damaged_is_named(run: Path, asked: Asked, how: str):
    newest = list_checkpoints(run / "checkpoints")[-1]
    damage(newest, how)
    answer = asked("sample", f"checkpoint={newest}", "num_samples=1", "device=cpu")
    assert_answered(answer, newest, must_name=True)
    assert answer.code == 2


# --- sweeps -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def sweep(run: Path) -> Path:
    """The folder of a sweep of two jobs, one of which was refused."""
    folder = Path("sweep")
    shutil.copytree(run, folder / "0", ignore=shutil.ignore_patterns("measurements", "csv"))
    JobResult(str(folder / "0"), ["seed=1"], 0).write(folder / "0")
    JobResult(str(folder / "1"), ["seed=-1"], 2, "seed must lie in 0..4294967295, got -1").write(folder / "1")
    return folder


@pytest.mark.parametrize("how", [how for how in DAMAGES if how != "missing"])  # without it no job has ended
@pytest.mark.parametrize("file", ["0/job.json", "0/summary.json"])
def test_the_table_of_a_sweep_has_the_jobs_that_can_be_read(sweep: Path, asked: Asked, file: str, how: str):
    damage(sweep / file, how)
    answer = asked.of(lambda: print_table(sweep))
    assert answer.code == 1 and Path(file).name in answer.text and "refused" in answer.text


@pytest.mark.parametrize("how", DAMAGES)
def test_a_page_of_a_sweep_without_its_table_says_so(sweep: Path, asked: Asked, how: str):
    print_table(sweep)
    damage(sweep / "sweep.json", how)
    answer = asked("report", f"run={sweep}")
    if how == "missing":  # a folder of several runs, which stands for the newest
        assert answer.code == 0 and "run=sweep is sweep/0" in answer.text
    else:
        assert_answered(answer, sweep / "sweep.json", must_name=True)


# --- dry runs ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", DAMAGES)
def test_an_old_plan_is_written_anew(asked: Asked, workdir: Path, how: str):
    plan = RunFolder(workdir / "dry").plan_file
    plan.parent.mkdir()
    plan.write_text(json.dumps({"plan": {}, "num_steps": 1}))
    damage(plan, how)
    assert asked("train", *TINY, "callbacks=none", "dry_run=true", "run_dir=dry").code == 0
    assert json.loads(plan.read_text())["num_steps"] == NUM_STEPS
