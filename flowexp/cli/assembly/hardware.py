"""What `auto` means on this machine: accelerator, devices, precision, and the processes of a command."""

from __future__ import annotations

from typing import Any

import torch
from omegaconf import OmegaConf

from flowexp.cli.trainer_keys import precision_of
from flowexp.training.parallel.work import rank_and_world_size, start_processes


def resolve_accelerator(accelerator: str) -> str:
    """`auto` is a CUDA GPU where there is one, else the CPU: MPS has no float64, which sums of many numbers need."""
    if accelerator != "auto":
        return accelerator
    return "cuda" if torch.cuda.is_available() else "cpu"


def resolve_devices(devices: Any, accelerator: str) -> Any:
    """`devices` as plain containers. Raises ValueError for a CPU's that is no number of processes."""
    devices = OmegaConf.to_container(devices) if OmegaConf.is_config(devices) else devices
    if accelerator == "cpu" and devices != "auto" and not str(devices).isdigit():
        raise ValueError(f"trainer.devices counts the processes of a CPU: give a number, got {devices}")
    return devices


def resolve_precision(precision: str, accelerator: str) -> str:
    """`auto` is bf16-mixed where the hardware multiplies in bf16, else 32-true; any other by its long name."""
    if precision != "auto":
        return precision_of(precision)
    on_gpu = resolve_accelerator(accelerator) in ("gpu", "cuda")
    fast = torch.cuda.is_bf16_supported(including_emulation=False) if on_gpu else cpu_multiplies_in_bf16()
    return "bf16-mixed" if fast else "32-true"


def cpu_multiplies_in_bf16() -> bool:
    """Whether this CPU has AVX512-BF16 or AMX, where bf16 is several times faster than fp32."""
    return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())


def device_of_processes(device: str, num: int) -> tuple[torch.device, bool]:
    """The device of this one of `num` processes, which are started where there are several; whether it is the first.

    Raises:
        ValueError: a device that torch does not know or does not find, or fewer than one process.
    """
    chosen = resolve_device(device) if num == 1 else start_processes(device, num)
    return chosen, rank_and_world_size()[0] == 0


def resolve_device(device: str) -> torch.device:
    """`auto` as in `resolve_accelerator`. Raises ValueError for a device that torch does not know or does not find."""
    try:
        found = torch.device(str(resolve_accelerator(device)))
    except RuntimeError:
        found = None
    if found is None or found.type not in ("cpu", "cuda"):
        raise ValueError(f"device must be auto, cpu or cuda, got {device!r}")
    if found.type == "cuda" and not torch.cuda.is_available():
        raise ValueError(f"device={device} needs a CUDA GPU, and torch finds none: take device=cpu or auto")
    return found
