"""Ours, after VD: does SSC help a sampler of an exact field, which no network has learned too short?

`python -m flowexp.reproduce vd/exact_field` trains nothing. The fields of some thousand images and of a Gaussian
mixture in as many dimensions are known in closed form; both have VD's deficit, which is Jensen's. Where SSC lowers the
distance of their samples, it mends the solver or the samples' noise, and not what a network has underestimated. Where
it does not, that deficit by itself harms no sampler, and what SSC mends of a network is another fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor
from tqdm import tqdm

from flowexp.cli.assembly.building import build_datamodule
from flowexp.cli.assembly.hardware import resolve_device
from flowexp.cli.recipes import (
    Judgement,
    Lines,
    Rows,
    by_seed,
    compare_scores,
    distance_name,
    gains,
    judge_share,
    with_band,
)
from flowexp.cli.recipes.runs import compose_run
from flowexp.flow.interpolants import Linear
from flowexp.flow.losses import ExactField
from flowexp.flow.randomness import keyed_generator
from flowexp.flow.sampler import Sampler
from flowexp.measuring.diagnostics import Projection, create_projection, velocity_norms
from flowexp.measuring.metrics import Moments, distance_of, moments_of
from flowexp.records.figures import plot_curves

CALLS = "network calls"
KEYS = ["field", "sampler", CALLS, "SSC"]
PLAIN = {"SSC": "none"}  # the baseline of each cell
DISTANCE = "frechet/pixels"  # in a random projection of the pixels
RELATIVE = "relative to no scale"
BATCH = 500
NEAR_NOISE = 0.95  # where the deficit is read
DEFICIT = "deficit at noise"
SSC = ("s0", "s1", "profile")
DECIDES = ("num_images", "num_samples", "components", "spread", "max_dim")  # what is found, beside a cell


def measure(lines: Lines) -> dict[str, Rows]:
    settings = lines.settings
    datamodule = build_datamodule(compose_run(list(settings.data)))
    images = datamodule.to_data(datamodule.train.subset(settings.num_images).images).to(resolve_device("auto"))
    cells = [
        Cell(name, field, seed, sampler)
        for name, field in fields(images, settings)
        for seed in lines.seeds
        for sampler in [None, *samplers(settings)]
    ]
    rows, fixed = [], {"data": list(settings.data), **{key: settings[key] for key in DECIDES}}
    with tqdm(total=sum(cell.calls for cell in cells), desc="drawing samples", unit="network call") as bar:
        for cell in cells:
            found = lines.kept(fixed | cell.columns | cell.scale, partial(cell.measure, settings))
            rows.append(cell.columns | found)
            bar.update(cell.calls)
    return {"distances": rows}


def samplers(settings: Mapping[str, Any]) -> Iterator[tuple[str, Sampler]]:
    """Every solver with every number of calls and every scale, by the scale's name."""
    for solver, num_steps in product(settings["samplers"], settings["num_steps"]):
        for scale, ssc in settings["scales"].items():
            yield str(scale), Sampler(solver, num_steps=num_steps, **dict(zip(SSC, ssc, strict=False)))


def fields(images: Tensor, settings: Mapping[str, Any]) -> Iterator[tuple[str, ExactField]]:
    """The field of the images themselves, and that of a mixture of Gaussians about the first of them."""
    yield "images", ExactField(images, Linear())
    yield "mixture", ExactField(images[: settings["components"]], Linear(), spread=settings["spread"])


@dataclass(frozen=True)
class Cell:
    """Samples of a field, all of one noise whatever the sampler; without one, as many data drawn anew."""

    name: str
    field: ExactField
    seed: int
    how: tuple[str, Sampler] | None

    @property
    def calls(self) -> int:
        return self.how[1].integrator.num_steps if self.how else 0

    @property
    def columns(self) -> dict[str, Any]:
        if self.how is None:
            told = {"sampler": "data drawn anew", CALLS: 0, "SSC": "none"}
        else:
            scale, sampler = self.how
            told = {"sampler": sampler.integrator.name, CALLS: self.calls, "SSC": scale}
        return {"field": self.name, **told, "seed": self.seed}

    @property
    def scale(self) -> dict[str, Any]:
        """What the name of the scale stands for."""
        return {key: getattr(self.how[1], key) for key in SSC} if self.how else {}

    def measure(self, settings: Mapping[str, Any]) -> dict[str, Any]:
        """The distance from the field's own law; beside the data drawn anew, the field's deficit."""
        field, num = self.field, settings["num_samples"]
        size = {"means": len(field.images), "samples": num}
        projection = create_projection(field.images[0].numel(), settings["max_dim"])
        samples = sampled(self.how[1], field, num, self.seed) if self.how else drawn(field, num, self.seed)
        distance = {DISTANCE: distance_of(moments_of(projection(samples).cpu()), data_moments(field, projection))}
        if self.how:
            return distance | size
        device = field.images.device
        (norms,) = velocity_norms(field, field.interpolant, samples, [NEAR_NOISE], self.seed, device=device)
        return distance | {DEFICIT: norms.deficit} | size


def sampled(sampler: Sampler, field: ExactField, num: int, seed: int) -> Tensor:
    """Samples (num, ...) of the field."""
    shape, device, parts = field.images.shape[1:], field.images.device, torch.arange(num).split(BATCH)
    drawn = [sampler.sample(field, field.interpolant, part, shape, seed, device=device).images for part in parts]
    return torch.cat(drawn)


def drawn(field: ExactField, num: int, seed: int) -> Tensor:
    """Data (num, ...) of the field's own law."""
    generator = keyed_generator(seed, 1)
    rows = torch.randint(len(field.images), (num,), generator=generator)
    noise = torch.randn(num, *field.images.shape[1:], generator=generator)
    return field.images[rows.to(field.images.device)] + field.spread * noise.to(field.images)


def data_moments(field: ExactField, projection: Projection) -> Moments:
    """Moments of that law in closed form, in the space of the projection."""
    vectors = projection(field.images).double().cpu()
    about = field.spread**2 * projection.noise_variance * torch.eye(projection.size, dtype=torch.float64)
    return Moments(vectors.mean(dim=0), vectors.T.cov(correction=0) + about, len(vectors))


def draw(tables: dict[str, Rows]) -> dict[str, Figure]:
    sampled = [row for row in tables["distances"] if row[CALLS]]
    pairs = dict.fromkeys((row["field"], row["sampler"]) for row in sampled)
    return {f"{field}_{sampler}": draw_sampler(sampled, field, sampler) for field, sampler in pairs}


def draw_sampler(rows: Rows, field: str, sampler: str) -> Figure:
    """The distance over network calls, a line for each scale, and relative to no scale at as many calls."""
    own = [row for row in rows if (row["field"], row["sampler"]) == (field, sampler)]
    plain = {calls: by_seed(own, DISTANCE, **{"SSC": "none", CALLS: calls}) for calls in {row[CALLS] for row in own}}
    shares = [{**row, RELATIVE: row[DISTANCE] / plain[row[CALLS]][row["seed"]]} for row in own]
    points = [row for value in (DISTANCE, RELATIVE) for row in with_band(shares, ["SSC", CALLS], value)]
    sizes, draws = own[0], len({row["seed"] for row in own})
    of = f"{sizes['means']:,.0f} images" if field == "images" else f"a mixture of {sizes['means']:,.0f} Gaussians"
    title = f"Exact field of {of}, {sampler}; {sizes['samples']:,.0f} samples, {draws} draws of the noise"
    names = {"SSC": "scale of the velocity", DISTANCE: distance_name(DISTANCE)}
    return plot_curves(points, CALLS, [DISTANCE, RELATIVE], "SSC", names, title, band=("low", "high"))


def summarise(tables: dict[str, Rows]) -> Rows:
    deficits = {row["field"]: 100 * row[DEFICIT] for row in tables["distances"] if isinstance(row.get(DEFICIT), float)}
    table = compare_scores(tables["distances"], KEYS, PLAIN)
    return [row | {f"{DEFICIT}, %": deficits[row["field"]]} for row in table]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["distances"]

    def gain(field: str, sampler: str, calls: int) -> Judgement:
        cell = {"field": field, "sampler": sampler, CALLS: calls}
        return judge_share(gains(rows, cell | {"SSC": "none"}, cell | {"SSC": "1.1 to 1"}))

    return {
        "ssc_gains_on_exact_images": gain("images", "euler_maruyama", 50),
        "ssc_gains_on_exact_images_at_250": gain("images", "euler_maruyama", 250),
        "ssc_gains_on_an_exact_mixture": gain("mixture", "euler_maruyama", 50),
        "ssc_gains_on_an_exact_mixture_at_250": gain("mixture", "euler_maruyama", 250),
        "ssc_gains_on_an_exact_mixture_in_the_ode": gain("mixture", "euler", 50),
    }
