"""A training never starts from zero where a run is there; what is measured is what is said to be measured."""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from flowexp.records.run_folder import RunFolder
from flowexp.training import checkpoints
from flowexp.training.checkpoints import latest_checkpoint, list_checkpoints, step_of, verify_checkpoint

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def trained(shell, tiny) -> Path:
    """A finished run with an early checkpoint and the last."""
    settings = ("run_dir=lost/R", "output_root=lost", "checkpoint.every_n_steps=6")
    shell.here("train", *tiny, *settings).succeeded()
    return shell.folder / "lost" / "R"


@pytest.fixture
def copy(trained: Path, shell) -> Path:
    """Such a run, to be damaged."""
    folder = shell.folder / "copies" / "R"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(trained, folder)
    return folder


def again(tiny, *others: str) -> tuple[str, ...]:
    return (*tiny, "output_root=copies", "checkpoint.every_n_steps=6", *others)


def empty(folder: Path) -> None:
    for file in list_checkpoints(folder / "checkpoints"):
        file.write_bytes(b"")


LOSSES: dict[str, Callable[[Path], None]] = {
    "removed": lambda run: shutil.rmtree(run / "checkpoints"),
    "emptied": empty,
    "removed before its end": lambda run: (shutil.rmtree(run / "checkpoints"), (run / "trained.json").unlink()),  # type: ignore[func-returns-value]
}


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("ckpt", ["auto", "last", "null"])
def test_a_run_whose_checkpoints_are_lost_is_not_begun_anew(copy: Path, shell, tiny, loss: str, ckpt: str):
    LOSSES[loss](copy)
    (copy / "summary.json").unlink()
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    where = ["run_dir=copies/R"] if ckpt == "null" else []
    refused = shell.here("train", *again(tiny, f"ckpt={ckpt}", *where))
    assert refused.code == 2 and "copies/R has trained 12 steps, and " in refused.err
    assert "leave ckpt and run_dir out to train from the first step" in refused.err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_a_run_that_was_killed_before_its_first_checkpoint_is_begun_by_auto_alone(copy: Path, shell, tiny):
    for lost in (copy / "trained.json", copy / "summary.json", *list_checkpoints(copy / "checkpoints")):
        lost.unlink()
    shutil.rmtree(copy / "csv")
    last = shell.here("train", *again(tiny, "ckpt=last"))
    assert last.code == 2 and "copies/R has no checkpoint yet: ckpt=auto starts it from its first step" in last.err
    shell.here("train", *again(tiny, "ckpt=auto")).succeeded()
    assert RunFolder(copy).trained_step() == 12


def test_a_newest_checkpoint_that_is_gone_is_said_with_both_steps(copy: Path, shell, tiny):
    list_checkpoints(copy / "checkpoints")[-1].unlink()
    for command, about in (("sample", ["num_samples=2", "sampler.num_steps=1"]), ("evaluate", ["callbacks=none"])):
        with pytest.warns(UserWarning, match="has trained 12 steps, and its newest whole checkpoint is that of step 6"):
            shell.here(command, "run=copies/R", *about).succeeded()
    shared = shell.here("train", *again(tiny, "trained_run=copies/R", "run_dir=copies/S"))
    assert shared.code == 2 and "has trained 12 steps, and no whole checkpoint after that of step 6" in shared.err
    shell.here("train", *again(tiny, "ckpt=auto")).succeeded()
    assert step_of(list_checkpoints(copy / "checkpoints")[-1]) == 12


# --- what the system could not read is not damaged -------------------------------------------------------------------


SYSTEM = {
    "open": lambda code: OSError(code, os.strerror(code)),
    "mmap": lambda code: RuntimeError(f"unable to mmap 4096 bytes from file <x>: {os.strerror(code)} ({code})"),
    "memory": lambda code: MemoryError(),
}


@pytest.mark.parametrize("code", [errno.ENOMEM, errno.EACCES, errno.EIO, errno.ESTALE, errno.EMFILE])
@pytest.mark.parametrize("place", ["open", "mmap"])
def test_an_error_of_the_system_is_no_damage(trained: Path, monkeypatch, code: int, place: str):
    def fail(*_: object, **__: object) -> None:
        raise SYSTEM[place](code)

    monkeypatch.setattr(torch, "load", fail)
    newest = list_checkpoints(trained / "checkpoints")[-1]
    with pytest.raises(OSError) as raised:
        latest_checkpoint(trained / "checkpoints")
    assert (raised.value.errno, raised.value.filename) == (code, str(newest))


def test_too_little_memory_and_a_closed_file_are_no_damage(trained: Path, monkeypatch):
    def fail(*_: object) -> None:
        raise MemoryError

    monkeypatch.setattr("zipfile.ZipFile.testzip", fail)
    with pytest.raises(OSError) as raised:
        verify_checkpoint(list_checkpoints(trained / "checkpoints")[-1])
    assert raised.value.errno == errno.ENOMEM


@pytest.mark.parametrize("command", ["train", "sample"])
def test_a_passing_fault_of_the_file_system_ends_in_a_sentence_and_changes_nothing(
    copy: Path, shell, tiny, monkeypatch, command: str
):
    def fail(*_: object) -> None:
        raise OSError(errno.ESTALE, os.strerror(errno.ESTALE))

    monkeypatch.setattr("zipfile.ZipFile.testzip", fail)
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    arguments = again(tiny, "ckpt=auto") if command == "train" else ("run=copies/R", "num_samples=2")
    refused = shell.here(command, *arguments)
    assert refused.code == 2 and "cannot read or write" in refused.err and "step_00000012.ckpt" in refused.err
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


# --- removed between the choice and the reading ----------------------------------------------------------------------


def test_a_checkpoint_that_is_removed_meanwhile_is_chosen_again(copy: Path, shell, monkeypatch):
    """As a training beside it does: it saves a newer one and removes those before."""
    folder = copy / "checkpoints"
    (copy / "trained.json").unlink()
    last = folder / "step_00000012.ckpt"
    verify, removed = checkpoints.folder.verify_checkpoint, []

    def verify_and_lose(path: Path) -> None:
        verify(path)
        if not removed:
            removed.append(path)
            shutil.copy(last, folder / "step_00000014.ckpt")
            path.unlink()

    monkeypatch.setattr("flowexp.training.checkpoints.folder.verify_checkpoint", verify_and_lose)
    shell.here("sample", "run=copies/R", "num_samples=2", "sampler.num_steps=1").succeeded()
    assert removed == [last]


def test_a_checkpoint_that_is_removed_while_it_is_verified_is_chosen_again(copy: Path, monkeypatch):
    folder, verify = copy / "checkpoints", checkpoints.folder.verify_checkpoint
    newest = list_checkpoints(folder)[-1]

    def lose_first(path: Path) -> None:
        if path == newest:
            newest.rename(folder / "step_00000013.ckpt")
        verify(path)

    monkeypatch.setattr("flowexp.training.checkpoints.folder.verify_checkpoint", lose_first)
    assert latest_checkpoint(folder) == folder / "step_00000013.ckpt"


def test_a_link_to_a_checkpoint_that_is_gone_is_passed_over(copy: Path, caplog):
    (copy / "checkpoints/step_00000099.ckpt").symlink_to("nowhere")
    assert step_of(latest_checkpoint(copy / "checkpoints")) == 12
    assert "step_00000099.ckpt is a link to a file that is gone" in caplog.text


# --- weights that no training left -----------------------------------------------------------------------------------


def test_weights_alone_are_not_gone_on_with(copy: Path, shell, tiny):
    file = copy / "checkpoints/step_00000012.ckpt"
    content = checkpoints.load_checkpoint(file)
    only = {key: content[key] for key in ("state_dict", "global_step")}
    checkpoints.AtomicCheckpointIO().save_checkpoint(only, file)
    refused = shell.here("train", *again(tiny, "ckpt=copies/R", "run_dir=copies/S"))
    assert refused.code == 2 and f"{Path('copies/R/checkpoints') / file.name} holds weights alone" in refused.err


# --- another version -------------------------------------------------------------------------------------------------


def test_a_run_of_another_version_is_called_so(copy: Path, shell):
    origin = json.loads((copy / "run.json").read_text())
    origin["versions"]["flowexp"], origin["commit"] = "9.9.9", "f" * 40
    (copy / "run.json").write_text(json.dumps(origin))
    text = (copy / "config.yaml").read_text()
    for config, words in (
        (
            text.replace("parameterization:", "parametrisation:"),
            "config.yaml has no parameterization: it is cut off, or",
        ),
        (text.replace("label_dropout:", "drop_labels:"), "there is no key backbone.drop_labels"),
        (text.replace("_target_: flowexp.data", "_target_: flowexp.sets"), "flowexp.sets"),
    ):
        assert config != text
        (copy / "config.yaml").write_text(config)
        refused = shell.here("sample", "run=copies/R", "num_samples=2")
        assert refused.code == 2 and words in refused.err and "made by flowexp 9.9.9, commit fffffffff" in refused.err
        assert "Traceback" not in refused.err
