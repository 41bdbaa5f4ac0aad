"""`train ckpt=`: the checkpoint that a training goes on from, and whether anything can go on from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_warn

from flowexp.cli.continuation import is_within, shares_its_training
from flowexp.records.curves import read_training
from flowexp.records.keys import training_key
from flowexp.records.recording import read_history
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import (
    is_checkpoint,
    latest_checkpoint,
    list_checkpoints,
    path_of,
    peek,
    step_of,
)


def checkpoint_to_take(
    config: DictConfig, folder: RunFolder, module: Any, datamodule: Any, num_steps: int
) -> Path | None:
    """The checkpoint to go on from, or to measure. Raises ValueError where it does not fit, before anything begins."""
    if config.trained_run is not None:
        return _shared_checkpoint(config)
    file = _find_checkpoint(config.ckpt, folder)
    if file is not None:
        _check_checkpoint(file, module, datamodule, num_steps)
    elif config.ckpt == "last":
        raise ValueError(f"ckpt=last, and {folder.path} has no checkpoint yet: ckpt=auto starts it from its first step")
    return file


def _find_checkpoint(ckpt: str | None, folder: RunFolder) -> Path | None:
    """The checkpoint to continue from: the newest whole one of this folder, else what `ckpt` points to, else None.

    A run that began from another's checkpoint continues from its newest one at the next start. Raises ValueError where
    `ckpt` is an older one of this folder: continuing from it would leave the newer ones beside it; and where this
    folder has trained and has no checkpoint that can be read: it must not start from zero by itself.
    """
    own = latest_checkpoint(folder.checkpoints)
    if own is None and not is_within(ckpt, folder.path):
        _check_that_nothing_is_lost(folder)
    if ckpt in (None, "auto", "last"):
        return own
    given = _checkpoint_at(str(ckpt))
    if own is None or given.absolute() == own.absolute():
        return given
    if given.absolute().parent == folder.checkpoints.absolute():
        raise ValueError(
            f"ckpt={ckpt} is not the newest checkpoint of this run, {own.name} is: leave run_dir out to begin a new "
            "run from it, or move the newer ones away"
        )
    rank_zero_warn(f"continues from {own}, the newest of this folder, and not from ckpt={ckpt}, where it began")
    return own


def has_stopped_early(config: DictConfig, folder: RunFolder, checkpoint: Path) -> bool:
    """Whether a callback such as EarlyStopping has ended this training with `checkpoint`, its last step."""
    trained = json.loads(folder.trained_file.read_text()) if folder.has_trained() else {}
    same = trained.get("stopped_early") and trained["training_key"] == training_key(config)
    return bool(same) and checkpoint.absolute() == path_of(folder.checkpoints, trained["step"]).absolute()


def _shared_checkpoint(config: DictConfig) -> Path:
    """That of the training which this run shares. Raises ValueError where it is not that of its end."""
    trained = RunFolder(Path(config.trained_run))
    file, step = latest_checkpoint(trained.checkpoints), trained.trained_step()
    if file is None or step_of(file) != step:
        newest = "no whole checkpoint" if file is None else f"no whole checkpoint after that of step {step_of(file)}"
        raise ValueError(
            f"trained_run={trained.path} has trained {step} steps, and {newest}: go on with it first, by "
            f"ckpt=auto run_dir={trained.path}"
        )
    return file


def _check_checkpoint(file: Path, module: Any, datamodule: Any, num_steps: int) -> None:
    """Raises ValueError, or torch's error for weights of another network, where nothing can go on from a checkpoint."""
    content = peek(file)
    if "optimizer_states" not in content or "loops" not in content:
        raise ValueError(
            f"{file} holds weights alone, such as `python -m flowexp.adopt` makes a run of, and no state of a training "
            "to go on from: sample, evaluate and diagnose take its run, and `train init=` begins a training from it"
        )
    if (step := int(content["global_step"])) > num_steps:
        raise ValueError(
            f"{file} has been trained for {step} steps, and this training ends after {num_steps}: raise "
            "trainer.max_steps or trainer.max_epochs to train longer, measure it by `python -m flowexp.evaluate`, or "
            "leave ckpt and run_dir out to train anew"
        )
    module.load_state_dict(content["state_dict"])
    datamodule.load_state_dict(content.get(type(datamodule).__qualname__, {}))
    datamodule.train_dataloader()  # compares the place in the data; Lightning loads both again


def _check_that_nothing_is_lost(folder: RunFolder) -> None:
    """Raises ValueError where a folder without a checkpoint has records of steps that were trained and saved."""
    if (step := _steps_on_record(folder)) == 0:
        return
    files = [*folder.checkpoints.glob("step_*.ckpt")]
    state = f"all {len(files)} of its checkpoints are damaged" if files else "its checkpoints are gone"
    raise ValueError(
        f"{folder.path} has trained {step} steps, and {state}: bring one back into {folder.checkpoints}, or leave ckpt "
        "and run_dir out to train from the first step in a folder of its own"
    )


def _steps_on_record(folder: RunFolder) -> int:
    """The last step that a folder's records name, where a checkpoint must have been saved before it; else 0."""
    if not folder.holds_work() or shares_its_training(folder):
        return 0
    ends = [folder.trained_step() or 0, *map(step_of, list_checkpoints(folder.checkpoints))]
    on_the_way = [entry["step"] for entry in read_history(folder.path)]
    on_the_way += [int(row["step"]) for row in read_training(folder.path)]
    saved = [step for step in on_the_way if step >= _saved_every(folder)]
    return max([*ends, *saved])


def _saved_every(folder: RunFolder) -> float:
    """The steps between two checkpoints of the run in a folder; infinite where that cannot be read."""
    try:
        return int(folder.config().checkpoint.every_n_steps)
    except Exception:  # a damaged config: what it is worth is another's matter
        return float("inf")


def _checkpoint_at(ckpt: str) -> Path:
    """The checkpoint that a path points to, or the newest of the run there. Raises ValueError where there is none."""
    path = Path(ckpt)
    found = latest_checkpoint(path / "checkpoints") if path.is_dir() and not is_checkpoint(path) else path
    if found is None or not found.exists():
        raise ValueError(f"ckpt={ckpt} is neither a checkpoint nor a run folder with one: give auto, last or a path")
    return found
