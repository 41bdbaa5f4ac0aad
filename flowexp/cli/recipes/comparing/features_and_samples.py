"""What many figures of LCF show of several methods: probe accuracy of features over t, distances over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.comparing.cells import plot_cells
from flowexp.cli.recipes.comparing.distances import distances_over_epochs, last_distances, plot_distances
from flowexp.cli.recipes.comparing.probe_curves import plot_probes, summarise_probes
from flowexp.cli.recipes.comparing.scores import Printed
from flowexp.cli.recipes.comparing.tables import Row, distance_in, distance_name
from flowexp.cli.recipes.lines import Lines, Rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = Mapping[str, Sequence[Row]]


def measure_features_and_samples(lines: Lines) -> dict[str, Rows]:
    """The tables `probe` and `distances`, of the yaml's measurements `probe` and `distance`."""
    probe = [row for line in lines.of("probe") for row in line.rows("probe")]
    return {"probe": probe, "distances": distances_over_epochs(lines.of("distance"))}


def draw_features_and_samples(tables: Tables) -> dict[str, Figure]:
    """A figure of each table, with a line for each method."""
    return {"probe": plot_probes(tables["probe"]), "distance": plot_distances(tables["distances"])}


def plot_ends(distances: Sequence[Row], plain: Row, paper: Printed, keys: Sequence[str] = ("method",)) -> Figure:
    """Distances at the last checkpoint, and by how much they are lower than the baseline's, beside the paper's FIDs.

    keys, plain, paper: as in `compare_scores`.
    """
    last = max(row["step"] for row in distances)
    return plot_cells([row for row in distances if row["step"] == last], keys, "", plain, paper)


def summarise_methods(tables: Tables, paper: Printed | None = None) -> Rows:
    """A row for each method: its probe curve in numbers, its distance at the end over seeds, the paper's FID."""
    distances = tables["distances"]
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    columns: dict[str, Any] = dict.fromkeys(key for row in probes.values() for key in row)
    table = []
    for method in dict.fromkeys(row["method"] for row in (*probes.values(), *distances)):
        ends = last_distances(distances, method)
        row = {**columns, **probes.get(method, {}), "method": method}
        row[distance_name(distance_in(distances[0]))] = sum(ends.values()) / len(ends) if ends else None
        table.append(row | ({f"paper ({paper.of}, FID)": paper.fids.get((method,))} if paper else {}))
    return table
