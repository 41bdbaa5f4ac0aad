"""`python -m flowexp.train [key=value ...]`: trains one module and measures what it learned."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from flowexp.runs import RunFolder


def run(config: DictConfig, folder: RunFolder) -> None:
    """Trains as `config` says, in `folder`, from its newest checkpoint if it has one; ends with `summary.json`."""
    from flowexp import building, plan
    from flowexp.runs import describe_origin

    _check(config)
    if config.dry_run:
        return _dry_run(config, folder)
    datamodule = building.build_datamodule(config)
    module = building.build_module(config, datamodule)
    _check_guidance(config, module.backbone.takes)
    about = plan.describe(config, module, datamodule)
    plan.warn_of_the_warmup(config, module, datamodule)
    origin = folder.origin_file
    if not origin.exists():
        folder.write_json(origin, describe_origin(config) | {"plan": about})
    _train_and_measure(config, folder, module, datamodule, about)


def _dry_run(config: DictConfig, folder: RunFolder) -> None:
    """Prints the plan, with the time that training will take where the data are here, and leaves it in `plan.json`."""
    from flowexp import building, plan
    from flowexp.callbacks.sharing import rank_and_world_size

    datamodule, missing = building.look_for_data(config)
    module = building.build_module(config, datamodule)
    _check_guidance(config, module.backbone.takes)
    num_steps = plan.total_steps(config, datamodule)
    lacks = _lacks(config)
    seconds = None if lacks or missing else plan.seconds_per_step(config, module, datamodule)
    if rank_and_world_size()[0] == 0:  # the processes that timed the steps all come here
        left = (
            f"about {seconds * num_steps / 60:.1f} minutes of training" if seconds else f"not timed: {lacks or missing}"
        )
        about = plan.describe(config, module, datamodule)
        plan.warn_of_the_warmup(config, module, datamodule)
        plan.print_plan({**about, "time left": left})
        timing = {"num_steps": num_steps, "seconds_per_step": seconds, "lacks": lacks, "missing_data": missing}
        folder.write_json(folder.plan_file, {"plan": about, **timing})


def _lacks(config: DictConfig) -> str | None:
    """What this machine lacks for trying a few steps, but for the data; None where it lacks nothing."""
    from flowexp import plan
    from flowexp.processes import num_side_by_side

    if plan.lacks_device(config.trainer.accelerator):
        return f"trainer.accelerator={config.trainer.accelerator}, and there is no GPU here"
    if config.trainer.num_nodes > 1 and num_side_by_side() == 1:  # the steps would wait for the other machines
        return f"{config.trainer.num_nodes} machines take part, and srun or torchrun starts them"
    return None


def _check(config: DictConfig) -> None:
    """Raises ValueError for settings that would fail only when training has begun."""
    from pytorch_lightning import Trainer

    from flowexp.trainer_keys import check_trainer
    from flowexp.values import check_values

    check_values(config.trainer, Trainer)
    check_trainer(config.trainer)
    if config.log_every_n_steps < 1:
        raise ValueError(f"log_every_n_steps must be at least 1, got {config.log_every_n_steps}")
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, got {config.seed}")
    if config.sampler.autoguidance_scale != 1:
        raise ValueError(
            "sampler.autoguidance_scale needs a weaker model, and a training run has none: leave it out here, and give "
            "guide=RUN to flowexp.sample or flowexp.evaluate"
        )


def _check_guidance(config: DictConfig, takes: str) -> None:
    """Raises ValueError for guidance that this run cannot have: it would fail only when the first samples are drawn."""
    if config.sampler.guidance_scale != 1 and takes == "nothing":
        raise ValueError(
            f"sampler.guidance_scale={config.sampler.guidance_scale} needs a network that knows the label: add "
            "class_conditional=true, or leave it at 1"
        )


def _train_and_measure(
    config: DictConfig, folder: RunFolder, module: Any, datamodule: Any, about: dict[str, Any]
) -> None:
    from flowexp import building, plan
    from flowexp.callbacks.monitor import Monitor, measure_now, recorder_of

    monitors = building.build_monitors(config)
    callbacks = building.build_callbacks(config, folder, monitors, plan.total_steps(config, datamodule))
    trainer = building.build_trainer(config, folder, building.build_loggers(config, folder), callbacks)
    with folder.held() if trainer.is_global_zero else nullcontext():
        if trainer.is_global_zero:
            plan.print_plan(about)
        step = _fit(config, folder, trainer, module, datamodule)
        at_end = [m for m in monitors if isinstance(m, Monitor) and m.at_end]
        measure_now(at_end, module, datamodule, recorder_of(trainer), step)
        if trainer.is_global_zero:
            _finish(config, folder, trainer, step)


def _fit(config: DictConfig, folder: RunFolder, trainer: Any, module: Any, datamodule: Any) -> int:
    """Trains, or restores the run that already trained this. Returns the step that was reached."""
    from flowexp.building import restore
    from flowexp.checkpoints import latest_checkpoint

    if config.trained_run is not None:
        shared = latest_checkpoint(folder.trained_by().checkpoints)
        assert shared is not None
        _warn_of_what_is_not_measured(config)
        module.to(trainer.strategy.root_device)
        return restore(module, shared)
    checkpoint = find_checkpoint(config.ckpt, folder)
    trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        folder.write_json(folder.trained_file, {"step": trainer.global_step})
    return int(trainer.global_step)


def _warn_of_what_is_not_measured(config: DictConfig) -> None:
    """Says what a run that measures another's weights was asked to measure on the way to them."""
    from pytorch_lightning.utilities import rank_zero_warn

    from flowexp.runs import measured_while_training

    if asked := measured_while_training(config):
        said = ", ".join(f"{key}={steps}" for key, steps in asked.items())
        rank_zero_warn(f"{said} asks for what only a training can show, and this run measures the weights that "
                       f"{config.trained_run} has trained: it measures them once")  # fmt: skip


def find_checkpoint(ckpt: str | None, folder: RunFolder) -> Any:
    """The checkpoint to continue from: the newest whole one of this folder, else what `ckpt` points to, else None.

    A run that began from another's checkpoint goes on from its own where it is started again. Raises ValueError where
    `ckpt` is an older one of this folder: going on from there would leave the newer ones beside it.
    """
    from pytorch_lightning.utilities import rank_zero_warn

    from flowexp.checkpoints import latest_checkpoint

    own = latest_checkpoint(folder.checkpoints)
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
    rank_zero_warn(f"goes on from {own}, the newest of this folder, and not from ckpt={ckpt}, where it began")
    return own


def _checkpoint_at(ckpt: str) -> Path:
    """The checkpoint that a path points to, or the newest of the run there. Raises ValueError where there is none."""
    from pathlib import Path

    from flowexp.checkpoints import latest_checkpoint

    path = Path(ckpt)
    found = latest_checkpoint(path / "checkpoints") if path.is_dir() else path
    if found is None or not found.exists():
        raise ValueError(f"ckpt={ckpt} is neither a checkpoint nor a run folder with one: give auto, last or a path")
    return found


def _finish(config: DictConfig, folder: RunFolder, trainer: Any, step: int) -> None:
    """Closes the loggers and ends the run with what was measured at its last step."""
    from flowexp.recording import read_history
    from flowexp.summary import summarise

    for logger in trainer.loggers:
        logger.finalize("success")
    last = [entry for entry in read_history(folder.path) if entry["step"] == step]
    measured = {entry["name"]: (entry["scalars"], entry["protocol"]) for entry in last}
    summarise(folder, measured, name=config.name, step=step, trained_run=config.trained_run)
    print(f"to evaluate, sample, diagnose or report it: {shlex.quote(f'run={os.path.relpath(folder.path)}')}")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.launch import open_door

    return open_door("train", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
