"""From a config to the parts of a run. Behind this file there is no config, only objects and plain numbers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import pytorch_lightning as pl
from hydra.errors import InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, OmegaConf, open_dict, read_write
from pytorch_lightning.loggers import Logger
from torch.optim import Optimizer

from flowexp.backbones import Backbone
from flowexp.cli.assembly.compiling import CompilerClock, is_compiled
from flowexp.cli.assembly.hardware import resolve_accelerator, resolve_devices, resolve_precision
from flowexp.cli.loggers import chosen_loggers
from flowexp.cli.sweeps.jobs import of_this_job
from flowexp.cli.trainer_keys import limited
from flowexp.cli.trust import check_targets
from flowexp.cli.validate import check_values
from flowexp.data import DataError, ImageDataModule
from flowexp.measuring.callbacks.monitor import Monitor
from flowexp.measuring.callbacks.progress import Progress
from flowexp.measuring.callbacks.step_log import StepLog
from flowexp.measuring.callbacks.watching import give_folders
from flowexp.objectives import FlowMatching
from flowexp.records.commit import git_commit
from flowexp.records.csv_log import CsvLog
from flowexp.records.files import atomic, fingerprint
from flowexp.records.keys import chosen_callbacks, monitor_key, training_key
from flowexp.records.run_folder import RunFolder
from flowexp.training.checkpoints import AtomicCheckpointIO
from flowexp.training.lr_schedules import MakeSchedule, RunLength, create_schedule
from flowexp.training.optimization import MakeOptimizer, check_optimizer


def build(config: DictConfig, **parts: Any) -> Any:
    """Calls the `_target_` of `config` with its other keys and `parts`. The one place that instantiates.

    Raises:
        ValueError: something in it, however deep, that `flowexp.cli.trust` does not let a config call.
    """
    check_targets(config)
    try:
        # parts go to the constructor past Hydra, which would turn those that are dataclasses into configs
        make = instantiate(config, _convert_="all", _partial_=True)
    except InstantiationException as error:
        if str(error).startswith("Error locating target"):
            raise ValueError(_not_found(error)) from error
        raise
    check_values(config)
    return make if config.get("_partial_") and not parts else make(**parts)


def build_partial(config: DictConfig) -> Any:
    """The `_target_` of `config` with its other keys, to be called with what is not known yet; `_partial_` or not."""
    node = OmegaConf.merge(config, {"_partial_": True})
    assert isinstance(node, DictConfig)
    return build(node)


_EXTRAS = {"schedulefree": "schedule-free"}  # packages of parts in conf/, and what brings each


def _not_found(error: InstantiationException) -> str:
    missing = error.__cause__ and error.__cause__.__cause__
    if isinstance(missing, ModuleNotFoundError) and (package := missing.name) in _EXTRAS:
        return f"{package} is not installed: pip install 'flowexp[{_EXTRAS[package]}]'"
    reason = " ".join(str(error.__cause__).split())
    where = "in the folder where the command is started, on PYTHONPATH, or in the folder that parts names"
    return f"{reason} A file of one's own must lie {where}"


def build_datamodule(config: DictConfig) -> ImageDataModule:
    """The dataset, read into memory."""
    datamodule = build(config.data)
    datamodule.prepare_data()
    datamodule.setup("fit")
    return datamodule


def look_for_data(config: DictConfig) -> tuple[ImageDataModule, str | None]:
    """The dataset as far as it is here, and what is missing: nothing is downloaded. A dry run plans with either.

    Raises:
        DataError: it is not here, and how many images it has is not known, or it has captions.
    """
    datamodule = build(config.data)
    try:
        datamodule.setup("fit")
    except DataError as error:
        if datamodule.num_train is None or datamodule.text_shape is not None:  # the empty caption lies with the data
            raise
        return datamodule, str(error)
    return datamodule, None


def build_module(
    config: DictConfig, datamodule: ImageDataModule, begin: Callable[[Backbone], None] | None = None
) -> FlowMatching:
    """The LightningModule with freshly initialised weights, the same for the same seed on every process.

    begin: puts other weights into the network, before terms copy any of it.
    """
    pl.seed_everything(config.seed, verbose=False)
    backbone = build_backbone(config, datamodule)
    if begin is not None:
        begin(backbone)
    module = build(
        config.objective,
        backbone=backbone,
        interpolant=build(config.interpolant),
        time_sampler=build(config.time_sampler),
        parameterization=build(config.parameterization),
        coupling=build(config.coupling),
        terms={name: build(term) for name, term in config.terms.items() if term is not None},
        optimizer=build_optimizer(config),
        lr_schedule=build_lr_schedule(config),
        ema=build(config.ema),
        sampler=build(config.sampler),
        seed=config.seed,
    )
    module.conditions = datamodule.conditions
    if backbone.takes == "text" and (empty_caption := datamodule.null_text()) is not None:
        backbone.set_null_text(empty_caption)
    if config.compile and is_compiled(config, backbone, num_images(config, datamodule)):
        backbone.compile_blocks()
    return module


def build_optimizer(config: DictConfig) -> MakeOptimizer:
    """A torch optimizer but for its parameters. Raises ValueError for settings that it refuses."""
    make: MakeOptimizer = build_partial(config.optimizer)
    check_optimizer(make)
    return make


def build_lr_schedule(config: DictConfig) -> MakeSchedule:
    """From an optimizer to its schedule, with Lightning's keys `interval` (step or epoch), `frequency` and `monitor`.

    Raises:
        ValueError: settings that the schedule refuses, or another interval.
    """
    node = config.lr_schedule.copy()
    with open_dict(node):
        keys = {key: node.pop(key) for key in ("interval", "frequency", "monitor", "strict") if key in node}
    if keys.get("interval", "step") not in ("step", "epoch"):
        raise ValueError(f"lr_schedule.interval must be step or epoch, got {keys['interval']!r}")
    make = build_partial(node)

    def scheduled(optimizer: Optimizer, **run: RunLength) -> dict[str, Any]:
        return {**keys, "scheduler": make(optimizer, **run)}

    scheduled.__signature__ = inspect.signature(make)  # type: ignore[attr-defined]
    _check_lr_schedule(scheduled, check_optimizer(build_partial(config.optimizer)))
    return scheduled


def _check_lr_schedule(make: MakeSchedule, optimizer: Optimizer) -> None:
    """Tries a schedule: what it refuses, it refuses before a dataset is read."""
    try:
        create_schedule(make, optimizer, lambda: RunLength(10**6, 10**9))
    except (TypeError, ValueError) as error:
        raise ValueError(f"the learning-rate schedule cannot be made: {error}") from error


def steps_per_epoch(config: DictConfig, datamodule: ImageDataModule) -> int:
    """Optimizer steps in one pass over the training images; Lightning takes the last one with however few batches."""
    batches = limited(datamodule.steps_per_epoch, config.trainer.get("limit_train_batches"))
    return math.ceil(batches / config.trainer.get("accumulate_grad_batches", 1))


def total_steps(config: DictConfig, datamodule: ImageDataModule) -> int:
    """Optimizer steps of the whole run, from `trainer.max_steps` and `trainer.max_epochs`, whichever ends first."""
    per_epoch = steps_per_epoch(config, datamodule)
    for key in ("max_steps", "max_epochs"):
        if (limit := config.trainer[key]) is not None and limit < 1 and limit != -1:
            raise ValueError(f"trainer.{key} must be at least 1, or -1 for no limit; got {limit}")
    limits = [config.trainer.max_steps] if config.trainer.max_steps > 0 else []
    if config.trainer.max_epochs is not None and config.trainer.max_epochs > 0:
        limits.append(config.trainer.max_epochs * per_epoch)
    if fast := int(config.trainer.get("fast_dev_run", 0)):
        limits.append(fast)
    if not limits:
        raise ValueError("give trainer.max_steps or trainer.max_epochs: both are unlimited")
    return min(limits)


def num_images(config: DictConfig, datamodule: ImageDataModule) -> int:
    """Images that the whole run trains on, over all processes, each as often as it is seen."""
    parts = config.trainer.get("accumulate_grad_batches", 1)
    return total_steps(config, datamodule) * parts * datamodule.batch_size


def build_backbone(config: DictConfig, datamodule: ImageDataModule) -> Backbone:
    """The network for a dataset's pictures, and its classes or the size of its embedded captions."""
    node = backbone_config(config, datamodule)
    with open_dict(node):
        from_data = {key: node.pop(key) for key in ("resolution", "channels", "num_classes")}
    return build(node, **from_data)


def backbone_config(config: DictConfig, datamodule: ImageDataModule) -> DictConfig:
    """The keys of the network with what the dataset decides."""
    if config.class_conditional and datamodule.text_shape is not None:
        raise ValueError(
            "class_conditional=true needs labels that are classes, and this dataset's are captions: leave it out, "
            "with a network that takes text, or choose a dataset without captions"
        )
    node = config.backbone.copy()
    if datamodule.text_shape is not None and "text_dim" in config.backbone:
        node.text_length, node.text_dim = datamodule.text_shape
    with open_dict(node):
        node.resolution, node.channels = datamodule.resolution, datamodule.channels
        node.num_classes = datamodule.num_classes if config.class_conditional else None
    return node


def build_monitors(config: DictConfig) -> list[pl.Callback]:
    """The chosen entries of `callbacks`, in their order: monitors, and any other callback.

    Those with the same `encoder` share one feature network, which may be larger than what is trained.
    """
    loaded: dict[str, Any] = {}
    return [_build_sharing(node, loaded) for node in chosen_callbacks(config).values()]


def _build_sharing(node: DictConfig, loaded: dict[str, Any]) -> Any:
    encoder = node.get("encoder")
    if not isinstance(encoder, DictConfig) or "_target_" not in encoder:
        return build(node)
    settings = OmegaConf.to_yaml(encoder, resolve=True, sort_keys=True)
    if settings not in loaded:
        loaded[settings] = build(encoder)
    others = node.copy()
    with read_write(others), open_dict(others):
        del others.encoder
    return build(others, encoder=loaded[settings])


def identify(config: DictConfig, monitors: list[pl.Callback]) -> None:
    """Gives each monitor the hash of its settings and code, by which a measurement on the disk is known again."""
    for name, monitor in zip(chosen_callbacks(config), monitors, strict=True):
        if isinstance(monitor, Monitor):
            monitor.settings = f"{monitor_key(config, name)}-{_code_of(type(monitor))}"


def _code_of(kind: type) -> str:
    """The fingerprint of the file that a class stands in, and of the commit."""
    try:
        source = Path(inspect.getfile(kind)).read_bytes()
    except (OSError, TypeError):  # a class of a notebook
        source = b""
    return fingerprint.of_content(source, str(git_commit()))


def build_trainer(
    config: DictConfig, run: RunFolder, loggers: list[Logger], callbacks: list[pl.Callback]
) -> pl.Trainer:
    """A Trainer that writes to the run's folder."""
    settings = dict(config.trainer)
    settings["accelerator"] = resolve_accelerator(settings["accelerator"])
    settings["devices"] = resolve_devices(settings["devices"], settings["accelerator"])
    settings["precision"] = resolve_precision(settings["precision"], settings["accelerator"])
    return pl.Trainer(
        **settings,
        strategy=build_strategy(config),
        log_every_n_steps=config.log_every_n_steps,
        default_root_dir=run.path,
        logger=loggers,
        callbacks=callbacks,
        enable_progress_bar=any(isinstance(callback, Progress) for callback in callbacks),
        plugins=[AtomicCheckpointIO()],
        use_distributed_sampler=False,  # the loader gives each rank its share of the global batch
        num_sanity_val_steps=0,
        enable_model_summary=False,
    )


def build_strategy(config: DictConfig) -> Any:
    """How processes share the training; without a `_target_` Lightning takes the one of a single device."""
    return build(config.strategy) if "_target_" in config.strategy else "auto"


def build_callbacks(
    config: DictConfig, run: RunFolder, monitors: list[pl.Callback], num_steps: int
) -> list[pl.Callback]:
    """The monitors, the training curves, the progress bar, and the checkpoints, which come last."""
    give_folders(monitors, str(run.path / "best"))
    progress = Progress(num_steps, config.log_every_n_steps, as_bar=None if config.progress_bar else False)
    clock = [CompilerClock()] if config.compile else []
    callbacks: list[pl.Callback] = [StepLog(config.log_every_n_steps), *clock, *monitors, progress]

    def note_end(trainer: pl.Trainer) -> None:
        atomic.write_json(run.trained_file, trained(config, trainer))

    return [*callbacks, build(config.checkpoint, folder=run.checkpoints, note_end=note_end)]


def trained(config: DictConfig, trainer: pl.Trainer) -> dict[str, Any]:
    """Content of `trained.json`. A training that a callback ended is finished, and is known by its settings."""
    early = {"stopped_early": True, "training_key": training_key(config)} if trainer.should_stop else {}
    return {"step": trainer.global_step, **early}


def build_loggers(config: DictConfig, run: RunFolder, about: Mapping[str, Any] | None = None) -> list[Logger]:
    """CSV always, and those of `logger`.

    What a logger's signature takes and its yaml leaves out is given: `save_dir`, or `folder`, `name` and `settings`. A
    job of a sweep is named by what is swept, and a logger with groups has the sweep's folder as one.

    about: what is known of the run beside its settings, for dashboards to filter by; they have it below `origin`.
    """
    swept, sweep = of_this_job()
    settings = cast("dict[str, Any]", OmegaConf.to_container(config)) | ({"origin": dict(about)} if about else {})
    offered = {"save_dir": str(run.path), "folder": run.path, "name": f"{config.name} {swept}".rstrip()}
    offered |= {"settings": settings, "sweep": sweep}
    further = [_build_logger(node, offered) for node in chosen_loggers(config).values()]
    return [CsvLog(run.path), *further]


def _build_logger(config: DictConfig, offered: dict[str, Any]) -> Logger:
    takes = inspect.signature(build_partial(config)).parameters
    wanted = ("folder", "name", "settings", "sweep") if "settings" in takes else ("save_dir",)
    parts = {name: offered[name] for name in wanted if name in takes and name not in config}
    try:
        logger = build(config, **parts)
    except ModuleNotFoundError as error:
        raise ValueError(f"{config['_target_']} needs a package that is not installed: {error}") from error
    if "settings" not in takes:
        logger.log_hyperparams(offered["settings"])
    return logger
