"""A step whose gradient is not finite, saved whole, so that it can be repeated and examined."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from flowexp.records.files import atomic
from flowexp.training.ema import whole
from flowexp.training.step_draws import StepKey, TrainingBatch


class NonFiniteGradientError(RuntimeError):
    """The gradient of a step is NaN or infinite; the weights, the optimizer and the EMA are those before the step."""


@dataclass(frozen=True)
class Extremes:
    """The largest absolute values at one place of the network; NaN where one of them is NaN."""

    place: str
    weight: float | None = None
    activation: float | None = None
    gradient: float | None = None

    def is_finite(self) -> bool:
        found = [value for value in (self.weight, self.activation, self.gradient) if value is not None]
        return all(value - value == 0 for value in found)


@dataclass(frozen=True)
class Incident:
    """Everything that decided a step, on the process that saves it.

    Arguments:
        step: optimizer steps taken before it.
        batches: the batches that it accumulated, with data, noise, t, labels and the key of their draws.
        weights: the module's `state_dict` before the step.
        gradients: largest absolute gradient of each parameter.
        losses: the parts of the last batch's loss.
        precision: Lightning's name for it.
        rng_state: PyTorch's global generator; no draw of ours uses it.
    """

    step: int
    batches: Sequence[TrainingBatch]
    weights: dict[str, Tensor]
    gradients: dict[str, float]
    losses: dict[str, float]
    precision: str
    rng_state: Tensor

    def save(self, path: Path) -> None:
        """Writes plain containers, which `load` reads without running code."""
        content = vars(self) | {"batches": [_as_plain(batch) for batch in self.batches]}
        with atomic.replacing(path) as partial:
            torch.save(content, partial)

    @classmethod
    def load(cls, path: Path) -> Incident:
        """Reads what `save` wrote. Raises ValueError where it is something else."""
        content = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(content, dict) or "batches" not in content:
            raise ValueError(f"{path} is no saved step: give a file nonfinite_step_*.pt of a run's folder")
        batches = [TrainingBatch(**batch | {"key": StepKey(**batch["key"])}) for batch in content.pop("batches")]
        return cls(batches=batches, **content)


def save_incident(module: pl.LightningModule, batches: Sequence[TrainingBatch], losses: Mapping[str, Tensor]) -> Path:
    """Save the step of `module` that has just failed in the run's folder, a file per process, and return its path.

    All processes call it and wait until all files are there: the first to end would end the others. losses: scalars.
    """
    file = path_of_incident(Path(module.trainer.default_root_dir), module.global_step, module.global_rank)
    Incident(
        step=module.global_step,
        batches=batches,
        weights={name: whole(value) for name, value in module.state_dict().items()},
        gradients=largest_gradients(module),
        losses={name: float(value) for name, value in losses.items()},
        precision=str(module.trainer.precision),
        rng_state=torch.get_rng_state(),
    ).save(file)
    module.trainer.strategy.barrier("incident")
    return file


def path_of_incident(folder: Path, step: int, rank: int) -> Path:
    """Where the process `rank` saves a step that fails."""
    return folder / f"nonfinite_step_{step:08d}{f'_rank{rank}' if rank else ''}.pt"


def gradient_norm(module: nn.Module) -> float:
    """The norm of all gradients together, as a training step computes it."""
    gradients = [parameter.grad for parameter in module.parameters() if parameter.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def _as_plain(batch: TrainingBatch) -> dict[str, Any]:
    """On the CPU; a tensor that is a view is saved without what lies around it."""
    tensors = {name: value.cpu().clone() for name, value in vars(batch).items() if isinstance(value, Tensor)}
    return {name: None for name in vars(batch)} | tensors | {"key": asdict(batch.key)}


def largest_gradients(module: nn.Module) -> dict[str, float]:
    """The largest absolute gradient of each parameter that has one, by name."""
    return {name: largest(p.grad) for name, p in module.named_parameters() if p.grad is not None}


def largest(tensor: Tensor) -> float:
    """The largest absolute value in a tensor of any shape; NaN where it has one."""
    return float(tensor.detach().abs().max()) if tensor.numel() else 0.0


@contextmanager
def watching_activations(module: nn.Module) -> Iterator[dict[str, float]]:
    """Within it, the largest absolute output of every submodule is noted, by name, in the order of the calls."""
    seen: dict[str, float] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and output.is_floating_point():
                seen[name] = max(seen.get(name, 0.0), largest(output), key=_nan_first)

        return hook

    hooks = [child.register_forward_hook(note(name)) for name, child in module.named_modules() if name]
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _nan_first(value: float) -> float:
    return float("inf") if value != value else value
