"""Whether a run compiles its network, and what the compiler took: `compile=auto` is for runs that repay it."""

from __future__ import annotations

import os
import shutil
import time
from typing import Any

import pytorch_lightning as pl
import torch
from omegaconf import DictConfig
from pytorch_lightning.utilities import rank_zero_info
from torch import nn

from flowexp.backbones import Backbone
from flowexp.cli.assembly.hardware import resolve_accelerator

# Floating-point operations of a training from which the compiler, which takes a minute, is repaid. On a CPU a compiled
# step takes 0.9 times as long (docs/results/benchmarks.md) at 1.5e11 operations a second and core: a minute is saved in
# ten. On a GPU, which we had not, 0.8 times at 1e14 is assumed.
REPAID = {"cpu": 1e14, "cuda": 3e16, "gpu": 3e16}
PASSES = 3  # forward, and backward to the inputs and to the weights


def is_compiled(config: DictConfig, backbone: Backbone, num_images: int) -> bool:
    """What `compile` means for a training on so many images, each counted as often as it is seen."""
    if config.compile != "auto":
        return bool(config.compile)
    kind = resolve_accelerator(config.trainer.accelerator)
    enough = num_images * PASSES * operations(backbone) >= REPAID[kind]
    return enough and (kind != "cpu" or (has_compiler() and not convolves(backbone)))


def convolves(backbone: Backbone) -> bool:
    """Whether its blocks are convolutions, for which the compiler calls the same library: a U-Net's.

    On a CPU a compiled step of a U-Net took 1.04 times as long (docs/results/benchmarks.md).
    """
    return any(isinstance(module, nn.Conv2d) for module in backbone.blocks.modules())


def has_compiler() -> bool:
    """Whether there is a compiler of C++, which torch.compile needs for a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX", "g++"), "c++", "clang++"))


def operations(backbone: Backbone) -> int:
    """Floating-point operations of a forward pass on one picture, a product and its sum counted as two.

    PyTorch counts them in matrix products and convolutions, on tensors without content: nothing is computed.
    """
    from torch.utils.flop_counter import FlopCounterMode

    tensors = {**dict(backbone.named_parameters()), **dict(backbone.named_buffers())}
    empty = {name: tensor.detach().to("meta") for name, tensor in tensors.items()}
    x = torch.empty(1, backbone.channels, backbone.resolution, backbone.resolution, device="meta")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        torch.func.functional_call(backbone, empty, (x, torch.empty(1, device="meta")))
    return counter.get_total_flops()


def describe_compiling(config: DictConfig, backbone: Backbone, num_images: int) -> dict[str, str]:
    """A line of the plan where the network may be compiled; nothing where it is not to be."""
    if config.compile is False:
        return {}
    if config.compile is True:
        return {"compiled": "yes"}
    size = f"{num_images * PASSES * operations(backbone):.2g} floating-point operations"
    kind = resolve_accelerator(config.trainer.accelerator)
    if is_compiled(config, backbone, num_images):
        return {"compiled": f"yes: {size}"}
    if kind == "cpu" and convolves(backbone):
        return {"compiled": "no: on a CPU the compiler does not speed up convolutions"}
    return {"compiled": f"no: {size}, and it is repaid from {REPAID[kind]:.0e} on, with a compiler of C++ on a CPU"}


class CompilerClock(pl.Callback):
    """Says what the compiler took in the first steps, and where the next run finds its work."""

    def __init__(self, num_steps: int = 3) -> None:
        self.num_steps = num_steps
        self.seconds = 0.0
        self._start = 0.0
        self._steps = 0

    def on_fit_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        from torch import _dynamo

        _dynamo.on_compile_start(self._begin)
        _dynamo.on_compile_end(self._end)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        self._steps += 1
        if self._steps == self.num_steps and self.seconds:
            rank_zero_info(f"the compiler took {self.seconds:.0f} s, less in the next run: it finds {cache_folder()}")

    def _begin(self, _: Any) -> None:
        self._start = time.perf_counter()

    def _end(self, _: Any) -> None:
        self.seconds += time.perf_counter() - self._start


def cache_folder() -> str:
    """Where the compiler keeps its work: TORCHINDUCTOR_CACHE_DIR, or a folder in that for temporary files."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return cache_dir()
