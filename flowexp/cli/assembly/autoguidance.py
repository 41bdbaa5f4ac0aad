"""The weaker model of autoguidance, from the run folder that `guide=` names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from flowexp.cli.assembly.rebuilding import load_run
from flowexp.objectives import FlowMatching


@contextmanager
def guided_by(module: FlowMatching, guide: str | None, checkpoint: str | None) -> Iterator[dict[str, Any] | None]:
    """Within it `module.guide` is the EMA network of the run `guide`; yields what to write beside the numbers, or None.

    checkpoint: one of that run by name, None the newest whole one. An early checkpoint of the module's own run is
    the usual guide: `guide` is then that run.

    Raises:
        ValueError: a checkpoint without its run, a guide that the module's sampler would not use, or one that works on
            other data, labels or another path than the module.
    """
    if guide is None:
        if checkpoint is not None:
            raise ValueError(f"guide_checkpoint={checkpoint} needs the run that it belongs to: add guide=RUN")
        yield None
        return
    if module.sampler.autoguidance_scale == 1:
        raise ValueError(f"guide={guide} serves autoguidance alone: add sampler.autoguidance_scale=2, or leave it out")
    weak, step = _load(guide, checkpoint)
    _check_that_it_fits(module, weak)
    weak.to(module.device)
    with weak.averaged():
        module.guide = weak.velocity_network
        try:
            yield {"run": str(Path(guide).absolute()), "step": step, "weights": weak.weights_name}
        finally:
            module.guide = None


def _load(guide: str, checkpoint: str | None) -> tuple[FlowMatching, int]:
    """The guide, without reading its dataset."""
    weak, _, step = load_run(Path(guide), None if checkpoint is None else Path(checkpoint), with_data=False)
    return weak, step


def _check_that_it_fits(module: FlowMatching, weak: FlowMatching) -> None:
    """Velocities can be combined only at the same point of the same path, for the same labels."""
    for what in ("channels", "resolution", "takes", "num_classes"):
        own, other = getattr(module.backbone, what), getattr(weak.backbone, what)
        if own != other:
            raise ValueError(f"the guide must have backbone.{what} of the run that it guides, {own}; it has {other}")
    if module.interpolant != weak.interpolant:
        raise ValueError(
            f"the guide must be trained on the path of the run that it guides, {module.interpolant}; its own is "
            f"{weak.interpolant}"
        )
