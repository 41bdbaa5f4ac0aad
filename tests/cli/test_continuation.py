"""Which run a training goes on with: through links, past damaged neighbours, and never another one unsaid."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path

import pytest
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, open_dict

from flowexp.cli.composing import Configs
from flowexp.cli.resolve import settle
from flowexp.records.files import atomic
from flowexp.records.keys import course_key, training_key
from flowexp.records.run_folder import RunFolder
from flowexp.records.search import folders_below, runs_below

TINY = ("trainer.max_steps=6", "callbacks=none")


@pytest.fixture(autouse=True)
def unset() -> Iterator[None]:
    yield
    HydraConfig.instance().cfg = None


@cache
def composed(overrides: tuple[str, ...]) -> DictConfig:
    return Configs().compose("train", [*TINY, *overrides], with_hydra=True)


def settled(*overrides: str, sweep: Path | None = None, job: str = "0") -> DictConfig:
    """The config of a training as the door settles it."""
    config = composed(overrides).copy()
    if sweep is not None:
        with open_dict(config):
            config.hydra.runtime.output_dir = str(sweep / job)
    HydraConfig.instance().set_config(config)
    with open_dict(config):
        config.pop("hydra")
    return settle("train", config, sweep)


def trained(folder: Path, *overrides: str, step: int | None = 6, **origin: object) -> RunFolder:
    """A folder in which a training has ended, or at least begun."""
    run, config = RunFolder(folder), settled("run_dir=any", *overrides)
    run.create(config)
    keys = {"training_key": training_key(config), "course_key": course_key(config), "began_from": None}
    atomic.write_json(run.origin_file, {**keys, "num_steps": config.trainer.max_steps, "steps_per_epoch": 22, **origin})
    run.checkpoints.mkdir()
    if step is not None:
        atomic.write_json(run.trained_file, {"step": step})
    return run


def aged(run: RunFolder, seconds: int) -> RunFolder:
    """The run as if it had begun earlier."""
    stamp = run.config_file.stat().st_mtime - seconds
    os.utime(run.config_file, (stamp, stamp))
    return run


# --- links -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("link", ["outputs/digits_fm", "outputs", "outputs/digits_fm/run"])
def test_auto_goes_on_with_a_run_behind_a_link(workdir: Path, link: str) -> None:
    real = workdir / "disk" / Path(link).relative_to("outputs")
    trained(real / Path("outputs/digits_fm/run").relative_to(link))
    (workdir / link).parent.mkdir(parents=True, exist_ok=True)
    (workdir / link).symlink_to(real)
    assert settled("ckpt=auto").run_dir == "outputs/digits_fm/run"


def test_links_in_a_circle_end_and_each_folder_is_seen_once(workdir: Path) -> None:
    run = trained(workdir / "outputs/a/run")
    for name, target in {
        "outputs/a/up": "..",
        "outputs/self": ".",
        "outputs/a/run/back": "../..",
        "outputs/b": "a",
    }.items():
        (workdir / name).symlink_to(target)
    (workdir / "outputs/latest").symlink_to("a/run")
    (workdir / "outputs/above").symlink_to("../..")
    (workdir / "outputs/dangling").symlink_to("nowhere")
    (found,) = runs_below(Path("outputs"))
    assert found.path.resolve() == run.path.resolve()
    folders = [folder.resolve() for folder in folders_below(Path("outputs"))]
    assert len(folders) == len(set(folders)) == 3 and all(
        folder.is_relative_to(workdir / "outputs") for folder in folders
    )


# --- damaged neighbours ----------------------------------------------------------------------------------------------

DAMAGES: dict[str, Callable[[bytes], bytes | None]] = {
    "empty": lambda content: b"",
    "half": lambda content: content[: len(content) // 2],
    "garbage": lambda content: bytes(range(256)) * 4,
    "utf-16": lambda content: content.decode().encode("utf-16")[:-1],
    "list": lambda content: b"[1, 2]\n",
    "word": lambda content: b"7\n",
    "missing": lambda content: None,
}


def damage(path: Path, kind: str) -> None:
    content = DAMAGES[kind](path.read_bytes())
    path.unlink() if content is None else path.write_bytes(content)


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
@pytest.mark.parametrize("ckpt", ["auto", "last"])
def test_a_neighbour_whose_record_is_damaged_blocks_nothing_and_is_named(
    workdir: Path, kind: str, ckpt: str, capsys: pytest.CaptureFixture[str]
) -> None:
    aged(trained(workdir / "outputs/mine"), 9)
    damage(trained(workdir / "outputs/other", "seed=5").origin_file, kind)
    assert settled(f"ckpt={ckpt}").run_dir == "outputs/mine"
    warning = capsys.readouterr().err
    assert "warning: outputs/other/run.json is damaged" in warning and "passed over" in warning


def test_a_record_that_may_not_be_read_blocks_nothing_and_is_named(
    workdir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    aged(trained(workdir / "outputs/mine"), 9)
    closed = trained(workdir / "outputs/closed").origin_file
    read = Path.read_bytes

    def refuse(path: Path) -> bytes:
        if path.name == "run.json" and path.parent.name == "closed":
            raise PermissionError(13, "Permission denied", str(path))
        return read(path)

    monkeypatch.setattr(Path, "read_bytes", refuse)
    assert settled("ckpt=auto").run_dir == "outputs/mine" and closed.exists()
    assert "cannot read outputs/closed/run.json, permission denied" in capsys.readouterr().err


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_config_stands_behind_a_whole_one_and_never_means_zero(workdir: Path, kind: str) -> None:
    damage(trained(workdir / "outputs/new").config_file, kind)
    assert settled("ckpt=auto").run_dir == "outputs/new"  # run.json says that it trains the same
    aged(trained(workdir / "outputs/old"), 9)
    assert settled("ckpt=auto").run_dir == "outputs/old"


def test_a_lost_record_is_made_up_for_by_the_config(workdir: Path) -> None:
    trained(workdir / "outputs/mine").origin_file.unlink()
    assert settled("ckpt=auto").run_dir == "outputs/mine"
    with pytest.raises(ValueError, match="run_dir=outputs/mine holds a run with other training settings"):
        settled("seed=5", "run_dir=outputs/mine")


@pytest.mark.parametrize("kind", [kind for kind in DAMAGES if kind != "missing"])
def test_the_record_of_the_run_that_is_meant_is_named(workdir: Path, kind: str) -> None:
    damage(trained(workdir / "mine").origin_file, kind)
    for ckpt in ("auto", "last", "null"):
        with pytest.raises(ValueError, match=r"mine/run\.json is damaged: it must hold a JSON object, and"):
            settled(f"ckpt={ckpt}", "run_dir=mine")


# --- published weights -----------------------------------------------------------------------------------------------


def test_adopted_weights_are_neither_gone_on_with_nor_shared(workdir: Path) -> None:
    trained(workdir / "outputs/adopted", adopted={"file": "sit.pt"})
    assert settled("ckpt=auto").run_dir != "outputs/adopted"
    with pytest.raises(ValueError, match="run_dir=outputs/adopted holds published weights"):
        settled("run_dir=outputs/adopted")
    with pytest.raises(ValueError, match="trained_run=outputs/adopted holds published weights"):
        settled("trained_run=outputs/adopted", "run_dir=mine")


# --- longer, shorter, other names ------------------------------------------------------------------------------------


def test_a_longer_training_takes_the_newest_shorter_one_of_its_name(workdir: Path) -> None:
    aged(trained(workdir / "outputs/four", "trainer.max_steps=4"), 20)
    trained(workdir / "outputs/other", "trainer.max_steps=5", "seed=5")
    trained(workdir / "outputs/named", "trainer.max_steps=5", "name=else")
    for ckpt in ("auto", "last"):
        assert settled(f"ckpt={ckpt}").run_dir == "outputs/four"


def test_the_same_training_comes_before_a_shorter_one_and_its_name_before_another(
    workdir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(workdir / "outputs/short", "trainer.max_steps=4")
    aged(trained(workdir / "outputs/named", "name=else"), 10)
    assert settled("ckpt=auto").run_dir == "outputs/named"
    assert "goes on with outputs/named, whose name is else and not digits_fm" in capsys.readouterr().out
    aged(trained(workdir / "outputs/mine"), 20)
    assert settled("ckpt=auto").run_dir == "outputs/mine"


def test_a_shorter_training_is_not_a_longer_one(workdir: Path) -> None:
    trained(workdir / "outputs/long", "trainer.max_steps=8", step=8)
    assert settled("ckpt=auto").run_dir != "outputs/long"
    with pytest.raises(ValueError, match="ckpt=last found no run with these training settings"):
        settled("ckpt=last")
    with pytest.raises(ValueError, match="run_dir=outputs/long holds a run with other training settings"):
        settled("ckpt=auto", "run_dir=outputs/long")


@pytest.mark.parametrize(
    ("short", "long", "is_longer"),
    [
        (["trainer.max_epochs=1", "trainer.max_steps=-1"], ["trainer.max_epochs=2", "trainer.max_steps=-1"], True),
        (["trainer.max_steps=20"], ["trainer.max_epochs=1", "trainer.max_steps=-1"], True),  # an epoch is 22 steps
        (["trainer.max_steps=24"], ["trainer.max_epochs=1", "trainer.max_steps=-1"], False),
        (["trainer.max_steps=24"], ["trainer.max_epochs=1", "trainer.max_steps=99"], False),
        (["trainer.max_steps=6", "trainer.max_epochs=1"], ["trainer.max_steps=-1"], False),  # no end
    ],
)
def test_steps_and_epochs_are_compared(workdir: Path, short: list[str], long: list[str], is_longer: bool) -> None:
    run = trained(workdir / "outputs/short", *short)
    steps = 22 if "trainer.max_epochs=1" in short and "trainer.max_steps=-1" in short else run.origin()["num_steps"]
    atomic.write_json(run.origin_file, {**run.origin(), "num_steps": steps})
    assert run.is_shorter_than(settled(*long, "run_dir=x")) is is_longer


def test_jobs_of_a_sweep_over_the_length_do_not_train_each_other_further(workdir: Path) -> None:
    sweep = workdir / "outputs/sweep"
    trained(sweep / "0", "trainer.max_steps=4", step=4)
    assert settled("ckpt=auto", sweep=sweep, job="1").run_dir == str(sweep / "1")
    trained(workdir / "outputs/before", "trainer.max_steps=4", step=4)
    assert settled("ckpt=auto", sweep=sweep, job="1").run_dir == "outputs/before"
    (sweep / "0/job.json").write_text(json.dumps({"run": str(workdir / "outputs/before")}))  # another job's by now
    assert settled("ckpt=auto", sweep=sweep, job="1").run_dir == str(sweep / "1")


def test_jobs_share_a_training_only_from_one_start(workdir: Path) -> None:
    sweep, start = workdir / "sweep", workdir / "start.ckpt"
    first = trained(sweep / "0", began_from=str(start))
    assert settled(f"ckpt={start}", sweep=sweep, job="1").trained_run == str(first.path)
    assert settled(f"ckpt={workdir / 'other.ckpt'}", sweep=sweep, job="1").trained_run is None
    assert settled(sweep=sweep, job="1").trained_run is None


def test_a_training_that_another_run_measures_is_found_where_both_were_moved(workdir: Path) -> None:
    sweep = workdir / "sweep"
    first = trained(sweep / "0")
    config = settled(sweep=sweep, job="1")
    second = RunFolder(sweep / "1")
    second.create(config)
    atomic.write_json(second.origin_file, {"training_key": training_key(config)})
    assert config.trained_run == str(first.path) and second.trained_by().path.resolve() == first.path
    moved = sweep.rename(workdir / "moved")
    assert RunFolder(moved / "1").trained_by().path.resolve() == moved / "0"
    atomic.write_json(moved / "0/run.json", {"training_key": "another"})
    assert RunFolder(moved / "1").trained_by().path == first.path  # not what merely lies there


# --- names -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["name", "run_dir", "output_root", "ckpt", "trained_run"])
@pytest.mark.parametrize("value", ["", "' '"])
def test_an_empty_name_is_refused(workdir: Path, key: str, value: str) -> None:
    with pytest.raises(ValueError, match=rf"{key} names a .*, and is empty: give a name, or leave {key}= out"):
        settled(f"{key}={value}")
    assert not list(workdir.iterdir())


@pytest.mark.parametrize("key", ["name", "run_dir", "output_root"])
def test_a_name_that_must_be_is_not_null(workdir: Path, key: str) -> None:
    with pytest.raises(ValueError, match=rf"{key} names a .*, and must be a word; got null"):
        settled(f"{key}=null")


@pytest.mark.parametrize("name", ["../../x", "..", ".", "a/../..", "/tmp/x"])
def test_a_name_does_not_lead_out_of_the_output_root(workdir: Path, name: str) -> None:
    with pytest.raises(
        ValueError, match=r"name must stay below output_root, got .*: give another folder by output_root"
    ):
        settled(f"name={name}")
    assert settled("name=a/b").run_dir.startswith("outputs/a/b/")
