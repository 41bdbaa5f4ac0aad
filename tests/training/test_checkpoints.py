"""A run can be killed at any instant: the newest checkpoint is whole, and the resumed run is the one left alone."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import random
import re
import resource
import shutil
import signal
import sys
import time
from collections import namedtuple
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch

from flowexp.training.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    StepCheckpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    verify_checkpoint,
)

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from checkpoint_processes import Regression, content, fit, fit_together, kill_ten_savers

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.xdist_group("checkpoints"),  # one pair of processes for all
]

SPAWN = multiprocessing.get_context("spawn")


class At(pl.Callback):
    """Does something at the start of the batch that leads to a step."""

    def __init__(self, step: int, act: Any) -> None:
        self.step, self.act = step, act

    def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step - 1:
            self.act()


class Crash(Exception):
    pass


def crash() -> None:
    raise Crash


# --- a resumed run is the run left alone -----------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[1, 2], ids=["", "accumulating"])
def left_alone(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Regression, int]:
    accumulate = request.param
    return fit(tmp_path_factory.mktemp("alone"), 12, accumulate_grad_batches=accumulate), accumulate


@pytest.mark.slow
@pytest.mark.parametrize("step", [2, 5, 6, 7, 10, 11, 12])
def test_a_crash_at_any_step_changes_nothing(tmp_path: Path, left_alone: tuple[Regression, int], step: int):
    """Five batches an epoch: also at its last batch (5, 10; accumulating 3, 6) and at the first of the next."""
    alone, accumulate = left_alone
    with pytest.raises(Crash):
        fit(tmp_path, 12, At(step, crash), accumulate_grad_batches=accumulate)
    resumed = fit(tmp_path, 12, accumulate_grad_batches=accumulate)
    assert resumed.seen == alone.seen[-len(resumed.seen) :]
    assert torch.equal(resumed.net.weight, alone.net.weight)


@pytest.mark.slow
@pytest.mark.parametrize("step", [4, 5, 6, 10])
def test_a_run_that_ended_can_be_made_longer(tmp_path: Path, left_alone: tuple[Regression, int], step: int):
    alone, accumulate = left_alone
    fit(tmp_path, step, every_n_steps=1000, accumulate_grad_batches=accumulate)
    longer = fit(tmp_path, 12, accumulate_grad_batches=accumulate)
    assert longer.seen == alone.seen[-len(longer.seen) :]
    assert torch.equal(longer.net.weight, alone.net.weight)


@pytest.mark.slow
def test_a_run_of_whole_epochs_can_be_made_longer(tmp_path: Path):
    alone = fit(tmp_path / "alone", -1, max_epochs=3)
    fit(tmp_path / "run", -1, every_n_steps=1000, max_epochs=2)
    longer = fit(tmp_path / "run", -1, every_n_steps=1000, max_epochs=3)
    assert longer.seen == alone.seen[10:]
    assert torch.equal(longer.net.weight, alone.net.weight)


@pytest.mark.slow
def test_a_run_resumes_from_the_checkpoint_before_a_damaged_one(tmp_path: Path, caplog: pytest.LogCaptureFixture):
    alone = fit(tmp_path / "alone", 12)
    fit(tmp_path / "run", 7)
    os.truncate(tmp_path / "run/checkpoints/step_00000007.ckpt", 1000)
    resumed = fit(tmp_path / "run", 12)
    assert "step_00000007.ckpt is damaged" in caplog.text
    assert resumed.seen == alone.seen[6:]
    assert torch.equal(resumed.net.weight, alone.net.weight)
    assert [path.name for path in list_checkpoints(tmp_path / "run/checkpoints")][-1] == "step_00000012.ckpt"


# --- which checkpoints there are -------------------------------------------------------------------------------------


def names(folder: Path) -> list[int]:
    return [int(path.stem.split("_")[1]) for path in list_checkpoints(folder)]


def test_milestones_that_are_no_multiples_of_the_others_are_saved_too(tmp_path: Path):
    keeper = StepCheckpoint(tmp_path / "kept", every_n_steps=10, keep=2, keep_every_n_steps=15)
    fit(tmp_path, 70, callbacks=[keeper])
    assert names(tmp_path / "kept") == [15, 30, 45, 60, 70]


def test_the_end_is_noted_as_soon_as_the_last_step_is_saved(tmp_path: Path):
    noted: list[tuple[int, list[int]]] = []
    keeper = StepCheckpoint(
        tmp_path / "kept", 2, note_end=lambda trainer: noted.append((trainer.global_step, names(tmp_path / "kept")))
    )
    with pytest.raises(SystemExit):  # a signal in the last step does not make it less the last
        fit(tmp_path, 5, callbacks=[At(5, lambda: os.kill(os.getpid(), signal.SIGTERM)), keeper])
    assert noted == [(5, [4, 5])]


def test_the_newest_stay_and_milestones_too(tmp_path: Path):
    keeper = StepCheckpoint(tmp_path / "kept", every_n_steps=2, keep=2, keep_every_n_steps=4)
    fit(tmp_path, 11, callbacks=[keeper])
    assert names(tmp_path / "kept") == [4, 8, 10, 11]


@pytest.mark.slow
def test_a_damaged_later_checkpoint_does_not_count_among_the_newest(tmp_path: Path):
    fit(tmp_path, 8, every_n_steps=4)
    os.truncate(tmp_path / "checkpoints/step_00000008.ckpt", 1000)
    with pytest.raises(Crash):
        fit(tmp_path, 12, At(7, crash))
    assert names(tmp_path / "checkpoints") == [5, 6, 8]


def test_the_previous_checkpoint_stays_until_the_next_is_written(tmp_path: Path):
    seen_at_save = []

    class Watching(AtomicCheckpointIO):
        def save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
            super().save_checkpoint(*args, **kwargs)
            seen_at_save.append(names(tmp_path / "kept"))

    fit(tmp_path, 3, callbacks=[StepCheckpoint(tmp_path / "kept", 1, keep=1)], plugins=[Watching()])
    assert seen_at_save == [[1], [1, 2], [2, 3]]
    assert names(tmp_path / "kept") == [3]


def test_each_step_is_saved_once(tmp_path: Path):
    saved = []

    class Counting(AtomicCheckpointIO):
        def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
            super().save_checkpoint(checkpoint, path)
            saved.append(checkpoint["global_step"])

    fit(tmp_path, 4, plugins=[Counting()], every_n_steps=2, accumulate_grad_batches=2)
    assert saved == [2, 4]


@pytest.mark.parametrize("wrong", [{"every_n_steps": 0}, {"keep": 0}, {"keep_every_n_steps": 0}])
def test_counts_are_positive(tmp_path: Path, wrong: dict[str, int]):
    with pytest.raises(ValueError, match="must be at least 1, got 0"):
        StepCheckpoint(tmp_path, **wrong)


def test_other_files_are_no_checkpoints(tmp_path: Path):
    for name in ("step_1.ckpt", "last.ckpt", ".step_00000009.ckpt.1.partial", "step_00000003.ckpt.bak"):
        (tmp_path / name).write_bytes(b"?")
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "missing") is None


# --- refused before the first step -----------------------------------------------------------------------------------


def test_an_unwritable_folder_is_refused_before_the_first_step(tmp_path: Path):
    (tmp_path / "checkpoints").write_text("a file where the folder should be")
    module = Regression()
    with pytest.raises(CheckpointError, match=r"cannot write .* to .*checkpoints: .* Choose another folder"):
        fit(tmp_path, 3, module=module)
    assert module.seen == []


def test_a_disk_without_room_is_refused_before_the_first_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    usage = namedtuple("usage", "total used free")
    module = Regression()  # 5 float32: 80 bytes with EMA and moments; keep=2 and the one in progress need 240
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 239))
    with pytest.raises(CheckpointError, match="make room"):
        fit(tmp_path, 3, module=module)
    assert module.seen == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(0, 0, 240))
    assert len(fit(tmp_path, 3, module=module).seen) == 3


def test_content_that_cannot_be_resumed_is_reported_with_the_first_checkpoint(tmp_path: Path):
    class Careless(Regression):
        def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
            checkpoint["optimizer_object"] = Path("somewhere")

    module = Careless()
    with pytest.raises(CheckpointError, match="plain containers"):
        fit(tmp_path, 3, module=module)
    assert len(module.seen) == 1


# --- a kill or a full disk during a save -----------------------------------------------------------------------------


@pytest.mark.slow
def test_a_kill_during_a_save_leaves_no_torn_checkpoint(tmp_path: Path):
    """Ten kills at random moments; some of them, as the partial files show, in the middle of a save."""
    killing = SPAWN.Process(target=kill_ten_savers, args=(tmp_path,))
    killing.start()
    killing.join(120)
    assert killing.exitcode == 0
    assert list_checkpoints(tmp_path)
    assert int((tmp_path / "torn_saves").read_text()) > 0, "no kill met a save: the test shows nothing"


def test_what_killed_saves_left_is_removed_at_the_next_start(tmp_path: Path):
    orphan = tmp_path / "checkpoints/.step_00000002.ckpt.4711.partial"
    orphan.parent.mkdir()
    orphan.write_bytes(b"half a checkpoint")
    fit(tmp_path, 1)
    assert [path.name for path in orphan.parent.iterdir()] == ["step_00000001.ckpt"]


@pytest.fixture
def files_of_at_most_one_megabyte() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_save_that_does_not_fit_says_so_and_leaves_the_old_file(tmp_path: Path, files_of_at_most_one_megabyte: None):
    path = tmp_path / "step_00000001.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1, size=1000), path)
    with pytest.raises(CheckpointError, match=r"cannot save .*: File too large\. Earlier checkpoints are intact"):
        AtomicCheckpointIO().save_checkpoint(content(2), path)
    assert load_checkpoint(path)["global_step"] == 1
    assert list(tmp_path.iterdir()) == [path]


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    path = tmp_path / "step_00000001.ckpt"
    AtomicCheckpointIO().save_checkpoint(content(1, size=100), path)
    return path


def flip_bit(path: Path, place: float, bit: int) -> None:
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 1 << bit
    path.write_bytes(data)


@pytest.mark.parametrize("kept", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_checkpoint_is_noticed(checkpoint: Path, kept: float):
    data = checkpoint.read_bytes()
    checkpoint.write_bytes(data[: int(kept * len(data))])
    with pytest.raises(CheckpointError, match="damaged"):
        verify_checkpoint(checkpoint)
    assert latest_checkpoint(checkpoint.parent) is None


@pytest.mark.slow
def test_a_flipped_bit_is_noticed_or_changes_nothing(checkpoint: Path):
    whole, original = checkpoint.read_bytes(), load_checkpoint(checkpoint)
    places, noticed = random.Random(0), 0
    for _ in range(400):
        flip_bit(checkpoint, places.random(), places.randrange(8))
        try:
            loaded = load_checkpoint(checkpoint)
        except CheckpointError:
            noticed += 1
        else:  # in the padding between the records
            assert loaded["global_step"] == original["global_step"]
            assert loaded["state_dict"].keys() == original["state_dict"].keys()
            assert all(torch.equal(loaded["state_dict"][k], v) for k, v in original["state_dict"].items())
        checkpoint.write_bytes(whole)
    assert noticed > 200


def test_a_flipped_bit_in_the_table_of_contents_is_noticed(checkpoint: Path):
    """Torch would read the record as a folder, and leave its tensor uninitialised."""
    whole = checkpoint.read_bytes()
    for entry in re.finditer(rb"PK\x01\x02", whole):
        attributes = entry.start() + 38
        checkpoint.write_bytes(whole[:attributes] + b"\x10" + whole[attributes + 1 :])
        with pytest.raises(CheckpointError, match="damaged"):
            verify_checkpoint(checkpoint)


def test_a_flipped_bit_in_a_tensor_is_noticed_though_torch_would_load_it(checkpoint: Path):
    data = checkpoint.read_bytes()
    tensor = content(1, size=100)["state_dict"]["w1"].numpy().tobytes()
    place = data.index(tensor) + 201
    checkpoint.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert not torch.equal(
        torch.load(checkpoint, weights_only=True)["state_dict"]["w1"], content(1, size=100)["state_dict"]["w1"]
    )
    with pytest.raises(CheckpointError, match="differs from what was written"):
        verify_checkpoint(checkpoint)


# --- code in a checkpoint --------------------------------------------------------------------------------------------


class Malicious:
    """Unpickled, it creates a file: stands for anything."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


@pytest.mark.parametrize("write", [torch.save, lambda x, path: path.write_bytes(pickle.dumps(x))], ids=["torch", "raw"])
def test_code_in_a_checkpoint_is_refused_at_every_door(tmp_path: Path, write: Any):
    path, trace = tmp_path / "checkpoints/step_00000001.ckpt", tmp_path / "trace"
    path.parent.mkdir()
    write({"state_dict": {}, "loops": Malicious(trace)}, path)
    for door in (verify_checkpoint, load_checkpoint, AtomicCheckpointIO().load_checkpoint):
        with pytest.raises(CheckpointError):
            door(path)
    with pytest.raises(CheckpointError):
        AtomicCheckpointIO().load_checkpoint(path, weights_only=False)
    assert latest_checkpoint(path.parent) is None
    assert not trace.exists()


def test_a_missing_checkpoint_is_named(tmp_path: Path):
    with pytest.raises(FileNotFoundError, match=r"no checkpoint at .*nowhere\.ckpt"):
        load_checkpoint(tmp_path / "nowhere.ckpt")


# --- asked to stop ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.usefixtures("begun_by_a_terminal")
@pytest.mark.parametrize(
    ("asked", "status"),
    [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129), (signal.SIGUSR1, 138)],
    ids=["TERM", "Ctrl-C", "HUP", "USR1"],
)
def test_a_signal_saves_the_step_it_arrives_in_and_stops(tmp_path: Path, asked: signal.Signals, status: int):
    alone, before = fit(tmp_path / "alone", 12), [signal.getsignal(s) for s in (signal.SIGTERM, asked)]
    with pytest.raises(SystemExit) as exit_:
        fit(tmp_path / "run", 12, At(7, lambda: os.kill(os.getpid(), asked)), every_n_steps=1000)
    assert exit_.value.code == status
    assert names(tmp_path / "run/checkpoints") == [7]
    assert [signal.getsignal(s) for s in (signal.SIGTERM, asked)] == before
    resumed = fit(tmp_path / "run", 12)
    assert resumed.seen == alone.seen[7:]
    assert torch.equal(resumed.net.weight, alone.net.weight)


@pytest.mark.slow
def test_a_signal_within_an_accumulation_waits_for_the_optimizer_step(tmp_path: Path):
    with pytest.raises(SystemExit):
        fit(tmp_path, 12, At(3, lambda: os.kill(os.getpid(), signal.SIGTERM)), accumulate_grad_batches=2)
    alone = fit(tmp_path / "alone", 12, accumulate_grad_batches=2)
    assert torch.equal(fit(tmp_path, 12, accumulate_grad_batches=2).net.weight, alone.net.weight)


def test_the_first_ctrl_c_is_answered_at_once_by_where_the_step_is_saved(tmp_path: Path, capfd):
    said: list[str] = []

    def once() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        said.append(capfd.readouterr().err)

    with pytest.raises(SystemExit):
        fit(tmp_path, 12, At(7, once), every_n_steps=1000)
    assert said[0].startswith(f"\nSIGINT: stops after this step and saves it in {tmp_path}/checkpoints; Ctrl-C again")


def test_a_second_ctrl_c_does_not_wait(tmp_path: Path):
    def twice() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(SystemExit) as exit_:
        fit(tmp_path, 12, At(7, twice), every_n_steps=1000)
    assert exit_.value.code == 1  # Lightning's, for a KeyboardInterrupt
    assert names(tmp_path / "checkpoints") == []


@pytest.mark.slow
@pytest.mark.usefixtures("warm_processes")
def test_two_processes_stop_together_though_only_one_is_asked_and_do_not_report_success(tmp_path: Path):
    both = [SPAWN.Process(target=fit_together, args=(rank, tmp_path)) for rank in range(2)]
    try:
        for process in both:
            process.start()
        wait_for(lambda: steps_of(tmp_path, 1) >= 5 or not both[1].is_alive())
        both[1].terminate()
        for process in both:
            process.join(60)
        assert [process.exitcode for process in both] == [143, 143]
    finally:
        for process in both:
            process.kill()
    (saved,) = names(tmp_path / "checkpoints")
    assert 5 <= saved < 1000 and steps_of(tmp_path, 0) == saved == steps_of(tmp_path, 1)
    verify_checkpoint(tmp_path / f"checkpoints/step_{saved:08d}.ckpt")


def steps_of(folder: Path, rank: int) -> int:
    note = folder / f"steps_of_{rank}"
    return int(note.read_text() or 0) if note.exists() else 0


def wait_for(ready: Callable[[], bool], seconds: float = 300) -> None:
    limit = time.monotonic() + seconds
    while not ready():
        assert time.monotonic() < limit, "the processes did not come so far"
        time.sleep(0.02)


@pytest.fixture(autouse=True)
def quiet_lightning() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)
