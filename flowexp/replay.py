"""`python -m flowexp.replay FILE [parts=FOLDER]`: repeats a saved step and names the first value that is not finite.

FILE is what a run leaves in its folder when a gradient is NaN or infinite: nonfinite_step_*.pt. FOLDER has the Python
files of your own that the run was made with.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowexp.objectives import FlowMatching
    from flowexp.training.nonfinite_step import Extremes, Incident


def replay(incident: Incident, module: FlowMatching) -> list[Extremes]:
    """The step's extremes at every place of the module, in the order in which the forward pass reaches them."""
    from flowexp.measuring.callbacks.autocast import autocast
    from flowexp.training.nonfinite_step import Extremes, largest, largest_gradients, watching_activations

    module.load_state_dict(incident.weights)
    module.to(incident.batches[0].data.dtype)  # float64 of a training in 64-true
    module.train()
    module.zero_grad()
    with watching_activations(module) as activations:
        for batch in incident.batches:
            with autocast(incident.precision, module.device):
                loss = module.losses(batch).loss
            (loss / len(incident.batches)).backward()
    gradients = largest_gradients(module)
    weights = {name: largest(value) for name, value in module.named_parameters()}
    places = [Extremes(place, activation=value) for place, value in activations.items()]
    return [*places, *(Extremes(name, weights[name], gradient=gradients.get(name)) for name in weights)]


def main() -> int:
    """The command line. Returns the exit code: 0 where the step could be taken again."""
    parts = [word.removeprefix("parts=") for word in sys.argv[2:] if word.startswith("parts=")]
    if len(sys.argv) != 2 + len(parts) or len(parts) > 1 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    path = Path(sys.argv[1])
    if not path.is_file():
        print(f"error: there is no file {path}: give a nonfinite_step_*.pt of a run's folder", file=sys.stderr)
        return 2
    try:
        _print(path, *parts)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print(path: Path, parts: str | None = None) -> None:
    from rich.table import Table

    from flowexp.cli.assembly import building, rebuilding
    from flowexp.cli.terminal import console
    from flowexp.cli.trust import vouch_for_folder
    from flowexp.records.run_folder import RunFolder
    from flowexp.training.nonfinite_step import gradient_norm

    vouch_for_folder(parts)
    incident = _read(path)
    config = rebuilding.stored_config(RunFolder(path.parent))
    module = building.build_module(config, building.build_datamodule(config))
    found = replay(incident, module)
    losses = ", ".join(f"{name} {value:.4g}" for name, value in incident.losses.items())
    table = Table(title=f"step {incident.step}: {losses}")
    for column in ("place", "weight", "activation", "gradient"):
        table.add_column(column, overflow="fold")
    for place in found:
        shown = ["" if v is None else f"{v:.3g}" for v in (place.weight, place.activation, place.gradient)]
        table.add_row(place.place, *shown, style=None if place.is_finite() else "bold red")
    console().print(table)
    print(verdict(found, incident, gradient_norm(module), path))


def _read(path: Path) -> Incident:
    """The saved step. Raises ValueError where the file holds none, or not the whole of it."""
    from flowexp.training.checkpoints import verify_checkpoint
    from flowexp.training.nonfinite_step import Incident

    try:
        verify_checkpoint(path)  # by its checksums, which torch does not look at
        return Incident.load(path)
    except ValueError:
        raise
    except Exception as error:  # torch raises several kinds for a file that is cut off or is none of its own
        what = f"{path} is damaged, or no saved step ({type(error).__name__})"
        raise ValueError(f"{what}: give a nonfinite_step_*.pt of a run's folder, as the run wrote it") from error


def verdict(found: list[Extremes], incident: Incident, norm: float = 0.0, path: Path | None = None) -> str:
    """The conclusion from the extremes, in a sentence.

    norm: of all gradients together. path: the file that was replayed; beside it lie those of other processes.
    """
    data = all(bool(batch.data.isfinite().all()) for batch in incident.batches)
    first = next((place for place in found if not place.is_finite()), None)
    if not data:
        return "the data of this step are not finite: look at the images"
    if first is not None:
        kind = "output" if first.activation is not None else "gradient"
        return f"the first value that is not finite is the {kind} of {first.place}"
    if norm - norm != 0 or max(incident.gradients.values(), default=0.0) > 1e18:  # of the mean of all processes
        return _of_the_norm(found)
    if incident.batches[0].key.world_size > 1 and any(value - value != 0 for value in incident.gradients.values()):
        return _of_another_process(incident, path)
    return "all is finite this time: the failure depends on the machine, its precision or its kernels"


def _of_the_norm(found: list[Extremes]) -> str:
    """Each gradient is finite, and the sum of their squares is not."""
    steepest = max((place for place in found if place.gradient is not None), key=lambda place: place.gradient or 0.0)
    return (
        f"every gradient is finite, but the norm of all together overflows 32-bit floats. The largest is "
        f"{steepest.gradient:.3g}, of {steepest.place}: the training diverges, lower optimizer.lr"
    )


def _of_another_process(incident: Incident, path: Path | None) -> str:
    """All is finite in what this process computed, and the gradient that all share was not."""
    others = _others_that_failed(incident, path) if path is not None else []
    where = f"replay {' or '.join(map(str, others))}" if others else "replay its nonfinite_step_*_rank*.pt"
    return f"all is finite on process {incident.batches[0].key.rank}: the failure is that of another one, {where}"


def _others_that_failed(incident: Incident, path: Path) -> list[Path]:
    """The files of other processes that had a loss or data that are not finite; where none has, all of theirs."""
    from flowexp.training.nonfinite_step import path_of_incident

    own = incident.batches[0].key
    files = [path_of_incident(path.parent, incident.step, rank) for rank in range(own.world_size) if rank != own.rank]
    there = [file for file in files if file.is_file()]
    return [file for file in there if _has_failed(_read(file))] or there


def _has_failed(incident: Incident) -> bool:
    data = all(bool(batch.data.isfinite().all()) for batch in incident.batches)
    return not data or any(value - value != 0 for value in incident.losses.values())


if __name__ == "__main__":
    sys.exit(main())
