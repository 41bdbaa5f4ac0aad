"""From a run folder back to its parts. What a stored config says is data, and builds parts of flowexp only."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from hydra.errors import HydraException, InstantiationException
from omegaconf import DictConfig
from omegaconf.errors import OmegaConfBaseException
from pytorch_lightning.utilities import rank_zero_warn

from flowexp.cli.assembly.building import build, build_datamodule, build_module
from flowexp.cli.trust import check_stored
from flowexp.data import DataError, ImageDataModule
from flowexp.objectives import FlowMatching
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import latest_checkpoint, load_checkpoint, step_of


def load_run(
    path: Path, checkpoint: Path | None = None, with_data: bool = True
) -> tuple[FlowMatching, ImageDataModule, int]:
    """Rebuilds a trained module from its run folder alone; without `with_data` the dataset is not read.

    A run that measured another one's weights, as jobs of a sweep over training-free keys do, takes them from there.
    Returns the module with its raw weights and its EMA (`module.averaged()` swaps it in), the dataset and the step.
    Raises ValueError where the folder has no usable checkpoint.
    """
    run = RunFolder(path)
    config, trained = stored_config(run), run.trained_by()
    if checkpoint is None:
        _check_newest(trained)  # before the data are read, which takes time
    with _named_if_of_another_version(run):
        datamodule = build_datamodule(config) if with_data else build(config.data)
        module = build_module(config, datamodule)
    return module, datamodule, restore(module, checkpoint) if checkpoint else _restore_newest(module, trained)


def stored_config(run: RunFolder) -> DictConfig:
    """The config of a training run, to be built. It is data, whoever wrote it, and may call parts of flowexp only.

    Raises:
        ValueError: as `RunFolder.trained_config`, or it would run other code, see `flowexp.cli.trust`.
    """
    config = run.trained_config()
    with _named_if_of_another_version(run):
        check_stored(config)
    return config


@contextmanager
def _named_if_of_another_version(run: RunFolder) -> Iterator[None]:
    """A config that this flowexp cannot build is refused with the version that wrote it."""
    try:
        yield
    except (DataError, OSError):
        raise
    except ValueError as error:  # of a value, or of something that is not here: the version may be why
        about = run.made_by() if run.is_of_another_version() else f"in {run.config_file}"
        raise ValueError(f"{error} ({about})") from error
    except (TypeError, KeyError, AttributeError, HydraException, OmegaConfBaseException) as error:
        cause = error.__cause__ if isinstance(error, InstantiationException) and error.__cause__ else error
        reason = " ".join(str(cause).split())
        raise ValueError(
            f"{run.config_file} cannot be built ({reason}): it is damaged, or of another version ({run.made_by()})"
        ) from error


def _check_newest(run: RunFolder) -> None:
    """Raises ValueError where a run has no usable checkpoint; warns where it is not that of the training's end."""
    if (file := latest_checkpoint(run.checkpoints)) is None:
        raise ValueError(f"{run.checkpoints} holds no usable checkpoint: none is saved yet, or all are damaged")
    if (step := run.trained_step()) not in (None, step_of(file)):
        rank_zero_warn(
            f"{run.path} has trained {step} steps, and its newest whole checkpoint is that of step {step_of(file)}: "
            "this older one is taken"
        )


def _restore_newest(module: FlowMatching, run: RunFolder) -> int:
    """Restores the newest checkpoint; chosen again where a training removes it between the choice and the reading."""
    while (file := latest_checkpoint(run.checkpoints)) is not None:
        with suppress(FileNotFoundError):
            return restore(module, file)
    raise ValueError(f"{run.checkpoints} holds no usable checkpoint any more")


def restore(module: FlowMatching, file: Path) -> int:
    """Puts the weights and the EMA of a checkpoint into `module`; returns its step."""
    content = load_checkpoint(file)
    module.load_state_dict(content["state_dict"])
    module.on_load_checkpoint(content)
    return int(content["global_step"])
