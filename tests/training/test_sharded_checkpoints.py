"""A checkpoint to which each process writes its share: whole or not there, and read by any number of processes."""

from __future__ import annotations

import logging
import multiprocessing
import os
import pickle
import shutil
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from flowexp.records.files.atomic import partial_of
from flowexp.training.checkpoints import (
    AtomicCheckpointIO,
    CheckpointError,
    StepCheckpoint,
    latest_checkpoint,
    list_checkpoints,
    load_checkpoint,
    peek,
    step_of,
    verify_checkpoint,
)

sys.path.append(str(Path(__file__).parent))  # processes of their own import what they run
from sharded_processes import fit, train_together

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning"),
    pytest.mark.xdist_group("sharded_checkpoints"),  # one pair of processes for all
    pytest.mark.skipif(not torch.distributed.is_available(), reason="needs gloo"),
]


@pytest.fixture(autouse=True)
def quiet_lightning() -> None:
    logging.getLogger("pytorch_lightning").setLevel(logging.ERROR)


# --- two processes ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory, warm_python: str) -> Iterator[Path]:
    """The folder of what two processes have trained, and where they were killed."""
    folder = tmp_path_factory.mktemp("together")
    before = multiprocessing.spawn.get_executable()
    multiprocessing.set_executable(warm_python)
    spawn = multiprocessing.get_context("spawn")
    both = [spawn.Process(target=train_together, args=(rank, folder)) for rank in range(2)]
    try:
        for process in both:
            process.start()
        for process in both:
            process.join(120)
    finally:
        multiprocessing.set_executable(before)
        for process in both:
            process.kill()
    yield folder


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the same training by one process, with checkpoints of one file."""
    folder = tmp_path_factory.mktemp("alone")
    fit(folder, 4)
    return folder


def steps_in(folder: Path) -> list[int]:
    return [step_of(path) for path in list_checkpoints(folder)]


def assert_same(found: Any, expected: Any, where: str = "") -> None:
    """The same content, but for the order of sums in float64, which AdamW may enlarge."""
    if isinstance(expected, Tensor):
        assert found.dtype == expected.dtype and type(found) is Tensor, where
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=lambda text: f"{where}: {text}")
    elif isinstance(expected, dict):
        assert found.keys() == expected.keys(), where
        for name, value in expected.items():
            assert_same(found[name], value, f"{where}/{name}")
    elif isinstance(expected, list | tuple):
        assert len(found) == len(expected), where
        for number, value in enumerate(expected):
            assert_same(found[number], value, f"{where}/{number}")
    else:
        assert found == expected, where


def what_is_trained(content: dict[str, Any]) -> dict[str, Any]:
    """Without the state of callbacks and loops, which differ in the batches that were seen since the start."""
    return {name: value for name, value in content.items() if name not in ("callbacks", "loops")}


@pytest.mark.slow
def test_two_processes_save_and_resume_what_one_trains(together: Path, alone: Path):
    assert steps_in(together / "run") == steps_in(alone) == [1, 2, 3, 4]
    for path in list_checkpoints(together / "run"):
        assert path.is_dir() and {"run.pt", ".metadata", "__0_0.distcp", "__1_0.distcp"} == {
            file.name for file in path.iterdir()
        }
        assert_same(what_is_trained(load_checkpoint(path)), what_is_trained(load_checkpoint(alone / path.name)))


@pytest.mark.slow
def test_one_process_resumes_what_two_have_saved(together: Path, alone: Path, tmp_path: Path):
    shutil.copytree(together / "run/step_00000002.ckpt", tmp_path / "step_00000002.ckpt")
    fit(tmp_path, 3)
    resumed, expected = (load_checkpoint(folder / "step_00000003.ckpt") for folder in (tmp_path, alone))
    assert (tmp_path / "step_00000003.ckpt").is_file()
    assert_same(what_is_trained(resumed), what_is_trained(expected))
    assert_same(resumed["loops"], expected["loops"])


@pytest.mark.slow
def test_a_kill_while_a_checkpoint_is_written_leaves_the_former_one(together: Path, alone: Path):
    folder = together / "killed"
    (unfinished,) = folder.glob(".step_00000002.ckpt.*.partial")
    assert {"__0_0.distcp", "__1_0.distcp"} <= {file.name for file in unfinished.iterdir()}
    assert latest_checkpoint(folder) == folder / "step_00000001.ckpt" and steps_in(folder) == [1]
    fit(folder, 2)
    assert sorted(path.name for path in folder.iterdir()) == ["step_00000001.ckpt", "step_00000002.ckpt"]
    assert_same(
        load_checkpoint(folder / "step_00000002.ckpt")["ema"], load_checkpoint(alone / "step_00000002.ckpt")["ema"]
    )


def test_other_strategies_are_refused(tmp_path: Path):
    trainer = torch.nn.Module()
    trainer.strategy = object()  # type: ignore[assignment]
    with pytest.raises(ValueError, match=r"sharded checkpoints need .*FullySharded, and the strategy is object"):
        StepCheckpoint(tmp_path, sharded=True).setup(trainer, trainer, "fit")  # type: ignore[arg-type]


# --- damage -----------------------------------------------------------------------------------------------------------

CONTENT = {
    "global_step": 3,
    "state_dict": {"w": torch.arange(6.0).reshape(2, 3), "n": torch.tensor(4)},
    "loops": [{"at": (1, "x")}],
    "ema": {"averages": {"w": torch.ones(2, 3)}},
}


def save(content: dict[str, Any], path: Path) -> Path:
    from flowexp.training.checkpoints import shards

    shards.save(content, path, partial_of(path), None, is_first=True).wait()  # type: ignore[arg-type]
    return path


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save(CONTENT, tmp_path / "step_00000003.ckpt")


def test_what_is_saved_is_loaded_and_peeked_at_without_what_is_no_weight(checkpoint: Path):
    assert_same(load_checkpoint(checkpoint), CONTENT)
    assert_same(peek(checkpoint)["state_dict"], CONTENT["state_dict"])
    assert peek(checkpoint)["ema"]["averages"]["w"].is_meta and peek(checkpoint)["loops"] == CONTENT["loops"]


def test_what_changes_after_the_call_is_not_saved(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from flowexp.training.checkpoints import shards

    write, has_changed = shards._Writer.write_data, threading.Event()
    monkeypatch.setattr(shards._Writer, "write_data", lambda *args: has_changed.wait(60) and write(*args))
    path, content = tmp_path / "step_00000001.ckpt", {"state_dict": {"w": torch.zeros(1000)}, "loops": {"step": 1}}
    saving = shards.save(content, path, partial_of(path), None, is_first=True)  # type: ignore[arg-type]
    content["state_dict"]["w"] += 1
    content["loops"]["step"] = 2
    has_changed.set()
    saving.wait()
    assert_same(load_checkpoint(path), {"state_dict": {"w": torch.zeros(1000)}, "loops": {"step": 1}})


@pytest.mark.parametrize("name", ["run.pt", ".metadata", "__0_0.distcp"])
@pytest.mark.parametrize("damage", [os.unlink, lambda file: os.truncate(file, 600)], ids=["gone", "cut"])
def test_a_damaged_folder_is_noticed(checkpoint: Path, name: str, damage: Callable[[Path], None]):
    damage(checkpoint / name)
    for door in (verify_checkpoint, load_checkpoint, peek):
        with pytest.raises(CheckpointError, match=r"step_00000003\.ckpt.* is damaged"):
            door(checkpoint)
    assert latest_checkpoint(checkpoint.parent) is None


def test_a_flipped_bit_of_a_tensor_is_noticed(checkpoint: Path):
    file = checkpoint / "__0_0.distcp"
    data = file.read_bytes()
    place = data.index(torch.arange(6.0).numpy().tobytes()) + 9
    file.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    with pytest.raises(CheckpointError, match="differs from what was written"):
        verify_checkpoint(checkpoint)


def test_a_resumed_run_saves_over_what_is_damaged_in_either_form(checkpoint: Path):
    later = {**CONTENT, "loops": "later"}
    (checkpoint / "run.pt").unlink()
    assert_same(load_checkpoint(save(later, checkpoint)), later)
    AtomicCheckpointIO().save_checkpoint(CONTENT, checkpoint)
    assert checkpoint.is_file()
    assert_same(load_checkpoint(save(later, checkpoint)), later)
    assert [path.name for path in checkpoint.parent.iterdir()] == [checkpoint.name]


def test_torch_itself_reads_the_tensors(checkpoint: Path, tmp_path: Path):
    from torch.distributed.checkpoint.format_utils import dcp_to_torch_save

    dcp_to_torch_save(checkpoint, tmp_path / "one.pt")
    assert_same(torch.load(tmp_path / "one.pt")["state_dict/w"], CONTENT["state_dict"]["w"])


class Malicious:
    """Unpickled, it creates a file: stands for anything."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> Any:
        return (os.mkdir, (str(self.trace),))


def test_code_in_the_table_is_not_run(checkpoint: Path, tmp_path: Path):
    import zlib

    table = pickle.dumps(Malicious(tmp_path / "trace"))
    (checkpoint / ".metadata").write_bytes(table)
    rest = torch.load(checkpoint / "run.pt", weights_only=True)
    torch.save({**rest, "table": zlib.crc32(table)}, checkpoint / "run.pt")
    with pytest.raises(CheckpointError, match="is no table of tensors"):
        load_checkpoint(checkpoint)
    assert not (tmp_path / "trace").exists()


def test_a_disk_without_room_is_told_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    from flowexp.training.checkpoints import shards

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shards, "replacing", full)
    with pytest.raises(CheckpointError, match=r"cannot save .*step_00000003.ckpt: No space left on device\. Earlier"):
        save(CONTENT, tmp_path / "step_00000003.ckpt")
    assert list(tmp_path.iterdir()) == []
