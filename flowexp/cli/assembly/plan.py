"""What a run is about to do, printed before step 0: batch, anchors, parameters, steps and, in a dry run, the time."""

from __future__ import annotations

import tempfile
import time
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_warn
from rich.table import Table
from torch import Tensor

from flowexp.cli.assembly.building import build_strategy, num_images, steps_per_epoch, total_steps
from flowexp.cli.assembly.compiling import describe_compiling
from flowexp.cli.assembly.hardware import resolve_accelerator, resolve_devices, resolve_precision
from flowexp.cli.launcher_ranks import num_processes
from flowexp.cli.terminal import console
from flowexp.cli.threads import describe_threads
from flowexp.data import ImageDataModule
from flowexp.data.loader import check_batch_size
from flowexp.objectives import FlowMatching
from flowexp.training.lr_schedules import RunLength, steps_of
from flowexp.training.nonfinite_step import NonFiniteGradientError
from flowexp.training.optimization import describe_optimizer
from flowexp.training.parallel.scale import StepSize, share_of
from flowexp.training.steps import ends_a_step

MANY = (8, 64)  # GPUs for which a dry run estimates a step


def describe(config: DictConfig, module: FlowMatching, datamodule: ImageDataModule) -> dict[str, Any]:
    """The plan of a run as named values."""
    backbone = module.backbone
    trained = sum(p.numel() for p in backbone.parameters() if p.requires_grad)
    return {
        "objective": type(module).__name__,
        "data": f"{datamodule.name}, {datamodule.num_train_images:,} images of {datamodule.channels} x "
        f"{datamodule.resolution} x {datamodule.resolution}",
        "backbone": f"{backbone.name}, {trained:,} trained parameters",
        "batch (over all processes)": _batch(config, datamodule),
        **module.describe(datamodule.batch_size),
        "steps": f"{total_steps(config, datamodule):,} ({steps_per_epoch(config, datamodule):,} per epoch)",
        "precision": _precision(config),
        **describe_compiling(config, backbone, num_images(config, datamodule)),
        "device": device_name(config.trainer.accelerator, num_processes(config) or 1),
        "optimizer": _optimizer(config, module),
        "weights measured": _weights(module),
    }


def _optimizer(config: DictConfig, module: FlowMatching) -> str:
    """`AdamW, lr 0.002, weight decay 0.01; warmup 100 steps; gradients clipped at norm 1`."""
    name = str(config.lr_schedule["_target_"]).rpartition(".")[2]
    given = [_in_words(str(key), value) for key, value in config.lr_schedule.items() if _is_set(str(key), value)]
    schedule = ", ".join([name, *given]).replace(f"{name}, {name} ", f"{name} ")
    limit, kind = config.trainer.get("gradient_clip_val"), config.trainer.get("gradient_clip_algorithm") or "norm"
    clipping = f"gradients clipped at {kind} {limit:g}" if limit else "gradients are not clipped"
    return f"{describe_optimizer(module.make_optimizer)}; {schedule}; {clipping}"


def _in_words(key: str, value: float) -> str:
    """A setting of a schedule as it is read aloud.

    >>> _in_words("warmup_steps", 2000), _in_words("num_epochs", 5), _in_words("final_share", 0.1)
    ('warmup 2,000 steps', '5 epochs', 'final share 0.1')
    """
    *words, unit = key.split("_")
    if unit not in ("steps", "epochs"):
        return f"{' '.join([*words, unit])} {value:g}"
    return " ".join([word for word in words if word != "num"] + [f"{value:,} {unit}"])


def _is_set(key: str, value: Any) -> bool:
    return not key.startswith("_") and isinstance(value, int | float) and value != 0


def _weights(module: FlowMatching) -> str:
    decays = module.averaging.decays
    further = f"; {', '.join(f'{decay:g}' for decay in decays[1:])} beside it" if decays[1:] else ""
    return f"EMA, decay {decays[0]:g}{further}" if decays else "as trained, no EMA"


def on_many_gpus(config: DictConfig, module: FlowMatching, datamodule: ImageDataModule) -> dict[str, str]:
    """What a step would take on 8 and on 64 GPUs, by both strategies, as rows of a dry run's plan."""
    backbone, batch = module.backbone, datamodule.batch_size
    bf16 = "bf16" in _precision(config)
    step = StepSize.of(backbone, _one_label(module, datamodule), batch, bf16, len(module.averaging.decays))
    nums = [num for num in MANY if batch % num == 0]
    return {f"on {num} H100, estimated": "; ".join(_share(step, num, name) for name in ("DDP", "FSDP")) for num in nums}


def _share(step: StepSize, num: int, strategy: str) -> str:
    share = share_of(step, num, sharded=strategy == "FSDP")
    return (
        f"{strategy}: {share.memory / 1e9:.3g} GB each, {share.moved / 1e9:.2g} GB sent a step, computes "
        f"{100 * share.efficiency:.0f} % of the time"
    )


def _one_label(module: FlowMatching, datamodule: ImageDataModule) -> Tensor | None:
    """A label of one image, as the network takes it."""
    device = module.device
    if module.backbone.takes == "text":
        assert datamodule.text_shape is not None
        return torch.zeros(1, *datamodule.text_shape, device=device)
    return torch.zeros(1, dtype=torch.int64, device=device) if module.backbone.takes == "class" else None


def _batch(config: DictConfig, datamodule: ImageDataModule) -> str:
    """The batch of an optimizer step, and its shares. Raises ValueError where it does not divide."""
    size, parts = datamodule.batch_size, config.trainer.get("accumulate_grad_batches", 1)
    text = str(size) if parts == 1 else f"{size * parts:,}, in {parts} batches of {size}"
    num = num_processes(config)
    if num is None or num == 1:
        return text
    check_batch_size(size, datamodule.num_train_images, num)
    return f"{text}, {size // num} on each of {num} processes"


def _precision(config: DictConfig) -> str:
    if config.trainer.precision == "auto" and lacks_device(config.trainer.accelerator):
        return "bf16-mixed where the GPU has it"
    return resolve_precision(config.trainer.precision, config.trainer.accelerator)


def lacks_device(accelerator: str) -> bool:
    """Whether a GPU is chosen and none is here."""
    return accelerator in ("gpu", "cuda") and not torch.cuda.is_available()


def device_name(accelerator: str, num: int = 1) -> str:
    """The accelerator's name, or the threads of a CPU on which `num` processes train."""
    if lacks_device(accelerator):
        return "a GPU, and none is here"
    if accelerator != "cpu" and torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {describe_threads(num)}"


def warn_of_the_warmup(config: DictConfig, datamodule: ImageDataModule) -> None:
    """Warns of a learning rate that training ends before it is reached."""
    given = (config.lr_schedule.get(key, 0) for key in ("warmup_steps", "warmup_epochs"))
    warmup = steps_of(RunLength(steps_per_epoch(config, datamodule)), *given)
    if warmup > (steps := total_steps(config, datamodule)):
        rank_zero_warn(
            f"the warm-up of {warmup:,} steps (lr_schedule.warmup_steps or warmup_epochs) is longer than the training "
            f"of {steps:,}: the learning rate ends at {100 * steps / warmup:.2g} % of optimizer.lr"
        )


def print_plan(plan: dict[str, Any]) -> None:
    """Prints a plan as a table."""
    table = Table(title="the run", show_header=False)
    for name, value in plan.items():
        table.add_row(name, str(value))
    console().print(table)


class _Stopwatch(pl.Callback):
    """Seconds per optimizer step, with all batches that it accumulates, after the first steps, which are slower.

    Ends the training when the timed steps have taken `patience` seconds, but not before five of them.
    """

    def __init__(self, warmup_steps: int = 3, patience: float = 10.0) -> None:
        self.warmup_steps = warmup_steps
        self.patience = patience
        self.seconds: list[float] = []
        self._last = 0.0

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: Any, outputs: Any, batch: Any, batch_idx: int) -> None:
        if not ends_a_step(trainer, batch_idx):
            return
        float(pl_module.latest["loss"])  # waits for the device
        before, self._last = self._last, time.perf_counter()
        if trainer.global_step > self.warmup_steps:
            self.seconds.append(self._last - before)
            trainer.should_stop = len(self.seconds) >= 5 and sum(self.seconds) > self.patience


def seconds_per_step(
    config: DictConfig, module: FlowMatching, datamodule: ImageDataModule, num_steps: int = 33
) -> float:
    """Trains a few steps that are thrown away and returns the median time of one.

    Raises:
        ValueError: the steps diverge, as those of the run would.
    """
    watch = _Stopwatch()
    with tempfile.TemporaryDirectory() as aside:
        try:
            _trial(config, num_steps, watch, aside).fit(module, datamodule=datamodule)
        except NonFiniteGradientError as error:
            step = str(error).split(";")[0]
            raise ValueError(
                f"the trial steps of the dry run diverge, as the run would ({step}): lower optimizer.lr"
            ) from error
    return sorted(watch.seconds)[len(watch.seconds) // 2]


def _trial(config: DictConfig, num_steps: int, watch: _Stopwatch, aside: str) -> pl.Trainer:
    """A Trainer whose steps are those of the run, and which writes nothing but into the folder `aside`."""
    return pl.Trainer(
        default_root_dir=aside,
        gradient_clip_val=config.trainer.get("gradient_clip_val"),
        gradient_clip_algorithm=config.trainer.get("gradient_clip_algorithm"),
        accelerator=resolve_accelerator(config.trainer.accelerator),
        devices=resolve_devices(config.trainer.devices, resolve_accelerator(config.trainer.accelerator)),
        num_nodes=config.trainer.num_nodes,
        strategy=build_strategy(config),
        precision=resolve_precision(config.trainer.precision, config.trainer.accelerator),  # type: ignore[arg-type]
        max_steps=num_steps,
        accumulate_grad_batches=config.trainer.get("accumulate_grad_batches", 1),
        callbacks=[watch],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        use_distributed_sampler=False,
    )
