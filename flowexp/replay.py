"""`python -m flowexp.replay FILE`: takes a saved step again and says where it stops being finite.

FILE is what a run leaves in its folder when a gradient is NaN or infinite: nonfinite_step_*.pt.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from flowexp.modules import FlowMatching
    from flowexp.modules.incident import Extremes, Incident


def replay(incident: Incident, module: FlowMatching) -> list[Extremes]:
    """The step's extremes at every place of the module, in the order in which the forward pass reaches them."""
    from flowexp.callbacks.precision import autocast
    from flowexp.modules.incident import Extremes, largest, largest_gradients, watching_activations

    module.load_state_dict(incident.weights)
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
    if len(sys.argv) != 2 or sys.argv[1] in ("-h", "--help"):
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    path = Path(sys.argv[1])
    if not path.is_file():
        print(f"error: there is no file {path}: give a nonfinite_step_*.pt of a run's folder", file=sys.stderr)
        return 2
    try:
        _print(path)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _print(path: Path) -> None:
    from rich.console import Console
    from rich.table import Table

    from flowexp import building
    from flowexp.runs import RunFolder

    incident = _read(path)
    config = RunFolder(path.parent).config()
    found = replay(incident, building.build_module(config, building.build_datamodule(config)))
    losses = ", ".join(f"{name} {value:.4g}" for name, value in incident.losses.items())
    table = Table(title=f"step {incident.step}: {losses}")
    for column in ("place", "weight", "activation", "gradient"):
        table.add_column(column, overflow="fold")
    for place in found:
        shown = ["" if v is None else f"{v:.3g}" for v in (place.weight, place.activation, place.gradient)]
        table.add_row(place.place, *shown, style=None if place.is_finite() else "bold red")
    Console().print(table)
    print(verdict(found, incident))


def _read(path: Path) -> Incident:
    """The saved step. Raises ValueError where the file holds none, or not the whole of it."""
    from flowexp.checkpoints import verify_checkpoint
    from flowexp.modules.incident import Incident

    try:
        verify_checkpoint(path)  # by its checksums, which torch does not look at
        return Incident.load(path)
    except ValueError:
        raise
    except Exception as error:  # torch raises several kinds for a file that is cut off or is none of its own
        what = f"{path} is damaged, or no saved step ({type(error).__name__})"
        raise ValueError(f"{what}: give a nonfinite_step_*.pt of a run's folder, as the run wrote it") from error


def verdict(found: list[Extremes], incident: Incident) -> str:
    """What the extremes say, in a sentence."""
    data = all(bool(batch.data.isfinite().all()) for batch in incident.batches)
    first = next((place for place in found if not place.is_finite()), None)
    if not data:
        return "the data of this step are not finite: look at the images"
    if first is None:
        return "all is finite this time: the failure depends on the machine, its precision or its kernels"
    kind = "output" if first.activation is not None else "gradient"
    return f"the first value that is not finite is the {kind} of {first.place}"


if __name__ == "__main__":
    sys.exit(main())
