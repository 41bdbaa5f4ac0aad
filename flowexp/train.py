"""`python -m flowexp.train [key=value ...]`: trains one module and measures what it learned."""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from flowexp.records.recording import Measurement
    from flowexp.records.run_folder import RunFolder


def run(config: DictConfig, folder: RunFolder) -> None:
    """Train by `config` in `folder`, from its newest checkpoint if it has one; ends with `summary.json`."""
    from flowexp.cli.assembly import building, plan, starting
    from flowexp.cli.continuation import start_of
    from flowexp.records.origin import describe_origin

    _check(config)
    if config.dry_run:
        return _dry_run(config, folder)
    datamodule = building.build_datamodule(config)
    start = starting.Start.of(config, folder)
    module = building.build_module(config, datamodule, start.begin)
    _check_guidance(config, module.backbone.takes)
    plan.warn_of_the_warmup(config, datamodule)
    origin = {
        **describe_origin(config),
        "plan": plan.describe(config, module, datamodule),
        "num_steps": plan.total_steps(config, datamodule),
        "steps_per_epoch": building.steps_per_epoch(config, datamodule),
        "began_from": start_of(config),
        **start.origin(),
    }
    _train_and_measure(config, folder, module, datamodule, origin)


def _dry_run(config: DictConfig, folder: RunFolder) -> None:
    """Prints the plan, with the time that training will take where the data are here, and leaves it in `plan.json`.

    A folder in which something was trained or measured stays as it is.
    """
    from flowexp.cli.assembly import building, plan, starting
    from flowexp.records.files import atomic
    from flowexp.training.parallel.work import rank_and_world_size

    datamodule, missing = building.look_for_data(config)
    module = building.build_module(config, datamodule, starting.Start.of(config, folder).begin)
    _check_guidance(config, module.backbone.takes)
    num_steps = plan.total_steps(config, datamodule)
    lacks = _lacks(config)
    seconds = None if lacks or missing else plan.seconds_per_step(config, module, datamodule)
    if rank_and_world_size()[0] == 0:  # the processes that timed the steps all come here
        left = (
            f"about {seconds * num_steps / 60:.1f} minutes of training" if seconds else f"not timed: {lacks or missing}"
        )
        about = plan.describe(config, module, datamodule) | plan.on_many_gpus(config, module, datamodule)
        plan.warn_of_the_warmup(config, datamodule)
        plan.print_plan({**about, "time left": left})
        timing = {"num_steps": num_steps, "seconds_per_step": seconds, "lacks": lacks, "missing_data": missing}
        if folder.plan_file.exists() or not folder.holds_work():
            folder.begin(config)
            atomic.write_json(folder.plan_file, {"plan": about, **timing})


def _lacks(config: DictConfig) -> str | None:
    """What this machine lacks for trying a few steps, but for the data; None where it lacks nothing."""
    from flowexp.cli.assembly import plan
    from flowexp.cli.launcher_ranks import num_side_by_side

    if plan.lacks_device(config.trainer.accelerator):
        return f"trainer.accelerator={config.trainer.accelerator}, and there is no GPU here"
    if config.trainer.num_nodes > 1 and num_side_by_side() == 1:  # the steps would wait for the other machines
        return f"{config.trainer.num_nodes} machines take part, and srun or torchrun starts them"
    return None


def _check(config: DictConfig) -> None:
    """Raises ValueError for settings that would fail only when training has begun."""
    from pytorch_lightning import Trainer

    from flowexp.cli.loggers import check_loggers
    from flowexp.cli.trainer_keys import check_trainer
    from flowexp.cli.validate import check_values

    check_values(config.trainer, Trainer)
    check_loggers(config)
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
    config: DictConfig, folder: RunFolder, module: Any, datamodule: Any, origin: dict[str, Any]
) -> None:
    """Trains and measures, or is refused before anything in the folder has changed."""
    from flowexp.cli.assembly import building, plan, resuming
    from flowexp.cli.continuation import check_same_training
    from flowexp.measuring.callbacks.beginning import BeforeFirstBatch
    from flowexp.measuring.callbacks.monitor import Monitor
    from flowexp.measuring.callbacks.monitor_runs import tell_failures
    from flowexp.records.files import atomic
    from flowexp.training import signals

    monitors = building.build_monitors(config)
    building.identify(config, monitors)
    callbacks = building.build_callbacks(config, folder, monitors, origin["num_steps"])
    _check_watched(config, module, monitors, callbacks)
    begins = BeforeFirstBatch(lambda trainer: _begin(config, folder, trainer, origin, trains=True))
    trainer = building.build_trainer(config, folder, [], [begins, *callbacks])
    measuring = [monitor for monitor in monitors if isinstance(monitor, Monitor)]
    until_saved = signals.listening(f"stops as soon as a step is saved in {folder.path}", trainer.is_global_zero)
    with folder.held() if trainer.is_global_zero else nullcontext(), until_saved:
        check_same_training(folder, config)  # again: another process may have trained here since the door looked
        checkpoint = resuming.checkpoint_to_take(config, folder, module, datamodule, origin["num_steps"])
        trainer.loggers = building.build_loggers(config, folder, _about(origin, module))
        if trainer.is_global_zero:
            atomic.remove_partials(folder.path)
            plan.print_plan(origin["plan"])
        step = _fit(config, folder, trainer, module, datamodule, checkpoint)
        _begin(config, folder, trainer, origin, trains=False)
        measured = _measure(measuring, trainer, module, datamodule, step)
        if trainer.is_global_zero:
            _finish(config, folder, trainer, step, measured)
    tell_failures(measuring)


def _about(origin: dict[str, Any], module: Any) -> dict[str, Any]:
    """What dashboards filter runs by beside their settings: commit, machine, and how many weights are trained."""
    known = {key: origin[key] for key in ("commit", "training_key", "machine", "versions", "num_steps")}
    return {
        **known,
        "parameters": sum(weight.numel() for weight in module.backbone.parameters() if weight.requires_grad),
    }


def _measure(monitors: list[Any], trainer: Any, module: Any, datamodule: Any, step: int) -> dict[str, Measurement]:
    """What is known of the last step, when the monitors that have not measured it as training ended have done so."""
    from flowexp.measuring.callbacks.monitor import recorder_of
    from flowexp.measuring.callbacks.monitor_runs import measure_now

    module.to(trainer.strategy.root_device)  # at its end, training has left it on the CPU
    left = [monitor for monitor in monitors if monitor.at_end or monitor.is_cut_off]
    measure_now(left, module, datamodule, recorder_of(trainer), step)
    return {m.latest.name: m.latest for m in monitors if m.last_step == step and m.latest is not None}


def _begin(config: DictConfig, folder: RunFolder, trainer: Any, origin: dict[str, Any], trains: bool) -> None:
    """Writes where the run comes from and its config, on the first process; from here on the folder changes."""
    if not trainer.is_global_zero:
        folder.begin(config, is_first=False)
    elif trains:
        folder.begin_training(config, origin)
    else:
        folder.note_origin(origin)
        folder.begin(config)


def _check_watched(config: DictConfig, module: Any, chosen: list[Any], callbacks: list[Any]) -> None:
    """Raises ValueError where a callback or the learning-rate schedule watches a number that there will not be."""
    from flowexp.measuring.callbacks.watching import check_watchable, check_watched
    from flowexp.records.keys import chosen_callbacks

    if config.trained_run is not None:  # nothing is trained
        return
    names = {id(callback): name for name, callback in zip(chosen_callbacks(config), chosen, strict=True)}
    check_watched(callbacks, module, names)
    if (watched := config.lr_schedule.get("monitor")) is not None:
        check_watchable("lr_schedule.monitor", watched, callbacks, module)


def _fit(
    config: DictConfig, folder: RunFolder, trainer: Any, module: Any, datamodule: Any, checkpoint: Path | None
) -> int:
    """Trains, or restores the run that already trained this. Returns the step that was reached."""
    from flowexp.cli.assembly import resuming
    from flowexp.cli.assembly.building import trained
    from flowexp.cli.assembly.rebuilding import restore
    from flowexp.measuring.callbacks.monitor_runs import MeasuringError
    from flowexp.records.files import atomic

    if config.trained_run is not None:
        assert checkpoint is not None
        _warn_of_what_is_not_measured(config)
        module.to(trainer.strategy.root_device)
        return restore(module, checkpoint)
    if checkpoint is not None and resuming.has_stopped_early(config, folder, checkpoint):
        module.to(trainer.strategy.root_device)
        return restore(module, checkpoint)
    with suppress(MeasuringError):  # raised again when the summary is written
        trainer.fit(module, datamodule=datamodule, ckpt_path=checkpoint, weights_only=True)
    if trainer.is_global_zero:
        atomic.write_json(folder.trained_file, trained(config, trainer))
    return int(trainer.global_step)


def _warn_of_what_is_not_measured(config: DictConfig) -> None:
    """Name the measurements during training that a run of another's weights cannot make."""
    from pytorch_lightning.utilities import rank_zero_warn

    from flowexp.records.keys import measured_while_training

    if keys := measured_while_training(config):
        listed = ", ".join(f"{key}={steps}" for key, steps in keys.items())
        rank_zero_warn(f"{listed} measures during a training, and this run measures the weights that "
                       f"{config.trained_run} has trained: it measures them once")  # fmt: skip


def _finish(config: DictConfig, folder: RunFolder, trainer: Any, step: int, measured: dict[str, Measurement]) -> None:
    """Closes the loggers and ends the run with what is known of its last step, now or from an earlier start."""
    from flowexp.cli.summary import summarise
    from flowexp.records.recording import read_history

    for logger in trainer.loggers:
        logger.finalize("success")
    last = [entry for entry in read_history(folder.path) if entry["step"] == step]
    numbers = {entry["name"]: (entry["scalars"], entry["protocol"]) for entry in last}
    numbers |= {name: (measurement.scalars, measurement.protocol) for name, measurement in measured.items()}
    summarise(folder, numbers, name=config.name, step=step, trained_run=config.trained_run)
    named = shlex.quote(f"run={os.path.relpath(folder.path)}")
    print(f"Next: python -m flowexp.report {named} (also evaluate, sample, diagnose)")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("train", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
