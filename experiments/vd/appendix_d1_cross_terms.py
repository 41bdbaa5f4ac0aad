"""VD appendix D.1: is the cross term <data, noise>, which eq. 4 leaves out, as small as the appendix has it?

`python -m flowexp.reproduce vd/appendix_d1` trains nothing. A table over pairs, as VD's check on 50,000 latents, and a
curve over the noise level of what the appendix argues: the term's mean given the state, by the exact posterior.
"""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowexp.cli.assembly.building import build_datamodule
from flowexp.cli.recipes import Judgement, Lines, Rows, over_seeds
from flowexp.cli.recipes.runs import compose_run
from flowexp.flow.interpolants import Linear
from flowexp.measuring.diagnostics import cross_terms
from flowexp.measuring.diagnostics.noised import noised_batches
from flowexp.records.figures import plot_curves

LARGEST_OF_PAIRS, LARGEST_GIVEN_STATE = 0.1, 0.05


def measure(lines: Lines) -> dict[str, Rows]:
    settings = lines.settings
    datamodule = build_datamodule(compose_run(list(settings.data)))
    images = datamodule.to_data(datamodule.train.subset(min(settings.num_images, len(datamodule.train))).images)
    pairs, states = [], []
    for seed in lines.seeds:
        pairs += [{"seed": seed, **row} for row in cross_terms(images, seed).rows()]
        states += [
            {"t": level, "seed": seed, "relative": given_state(images, level, settings.num_states, seed)}
            for level in settings.levels
        ]
    return {"pairs": pairs, "given_state": states}


def given_state(images: Tensor, level: float, num_states: int, seed: int) -> float:
    """The mean over states of |E[2 <data, noise> | xt]| / E[|data|^2 + |noise|^2 | xt], of the images as data."""
    path, values = Linear(), []
    candidates = images.flatten(1).double()
    squares = candidates.square().sum(dim=1)
    for batch in noised_batches(images[:num_states], level, seed):
        xt = path.interpolate(batch.data, batch.noise, batch.t).flatten(1).double()
        alpha, sigma = 1 - level, level
        weights = torch.softmax(-torch.cdist(xt, alpha * candidates).square() / (2 * sigma**2), dim=1)
        data, energy = weights @ candidates, weights @ squares
        inner = ((xt * data).sum(dim=1) - alpha * energy) / sigma  # noise = (xt - alpha data) / sigma
        noise = (xt.square().sum(dim=1) - 2 * alpha * (xt * data).sum(dim=1) + alpha**2 * energy) / sigma**2
        values.append(2 * inner.abs() / (energy + noise))
    return float(torch.cat(values).mean())


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    points = over_seeds([{"progress": 1 - row["t"]} | row for row in tables["given_state"]], ["progress"], ["relative"])
    names = {"progress": "progress of sampling, VD's t", "relative": "cross term given the state / energy"}
    band = ("relative_low", "relative_high")
    title = f"Cross term given the state, {points[0]['seeds']} draws of the noise"
    return {"given_state": plot_curves(points, "progress", "relative", names=names, title=title, band=band)}


def summarise(tables: dict[str, Rows]) -> Rows:
    return over_seeds(tables["pairs"], ["magnitude"], ["mean", "percentile_99", "maximum"])


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    pairs = [row["percentile_99"] for row in tables["pairs"] if row["magnitude"] == "relative"]
    states = [row["relative"] for row in tables["given_state"]]

    def below(values: list[float], most: float) -> Judgement:
        evidence = f"the largest is {max(values):.3g}, {most:g} was the limit"
        return Judgement("supported" if max(values) < most else "refuted", evidence)

    return {
        "cross_terms_are_small": below(pairs, LARGEST_OF_PAIRS),
        "cross_terms_vanish_given_the_state": below(states, LARGEST_GIVEN_STATE),
    }
