"""What many figures of LCF show of several methods: probe accuracy of features over t, distances over epochs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from flowexp.cli.recipes.distances import distances_over_epochs, last_distances, plot_distances
from flowexp.cli.recipes.lines import Lines, Rows
from flowexp.cli.recipes.probe_curves import plot_probes, summarise_probes
from flowexp.cli.recipes.tables import Row, distance_in, distance_name

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


def summarise_methods(tables: Tables, fids: Mapping[str, float] | None = None, scale: str = "CIFAR-10") -> Rows:
    """A row for each method: its probe curve in numbers, its distance at the end averaged over seeds, the paper's FID.

    fids: what the paper prints, by method. scale: of the paper's numbers.
    """
    distances = tables["distances"]
    probes = {row["method"]: row for row in summarise_probes(tables["probe"])}
    columns: dict[str, Any] = dict.fromkeys(key for row in probes.values() for key in row)
    table = []
    for method in dict.fromkeys(row["method"] for row in (*probes.values(), *distances)):
        ends = last_distances(distances, method)
        row = {**columns, **probes.get(method, {}), "method": method}
        row[distance_name(distance_in(distances[0]))] = sum(ends.values()) / len(ends) if ends else None
        table.append(row | ({f"paper ({scale}, FID)": fids.get(method)} if fids else {}))
    return table
