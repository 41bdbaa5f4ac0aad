"""Ours, after VD: does SSC help a sampler of an exact field, which no network has learned too short?

`python -m flowexp.reproduce vd/exact_field` trains nothing. The fields of some thousand images and of a Gaussian
mixture in as many dimensions are known in closed form; both have VD's deficit, which is Jensen's. Where SSC lowers the
distance of their samples, it mends the solver or the samples' noise, and not what a network has underestimated. Where
it does not, that deficit by itself harms no sampler, and what SSC mends of a network is another fault.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
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


def measure(lines: Lines) -> dict[str, Rows]:
    settings = lines.settings
    datamodule = build_datamodule(compose_run(list(settings.data)))
    images = datamodule.to_data(datamodule.train.subset(settings.num_images).images).to(resolve_device("auto"))
    exact = dict(fields(images, settings))
    rows = [
        {"field": name, **row, "seed": seed}
        for name, seed in tqdm(list(product(exact, range(settings.draws))), desc="fields and draws", unit="set")
        for row in _distances(exact[name], settings, seed)
    ]
    return {"distances": rows}


def fields(images: Tensor, settings: Mapping[str, Any]) -> Iterator[tuple[str, ExactField]]:
    """The field of the images themselves, and that of a mixture of Gaussians about the first of them."""
    yield "images", ExactField(images, Linear())
    yield "mixture", ExactField(images[: settings["components"]], Linear(), spread=settings["spread"])


def _distances(field: ExactField, settings: Mapping[str, Any], seed: int) -> Iterator[dict[str, Any]]:
    """The distance of the samples of every sampler and scale, all of one noise, and of as many data drawn anew."""
    projection = create_projection(field.images[0].numel(), settings["max_dim"])
    reference, data = data_moments(field, projection), drawn(field, settings["num_samples"], seed)
    (norms,) = velocity_norms(field, field.interpolant, data, [NEAR_NOISE], seed, device=field.images.device)
    deficit = {"deficit at noise": norms.deficit}
    size = {"means": len(field.images), "samples": settings["num_samples"]}

    def row(sampler: str, calls: int, scale: str, samples: Tensor) -> dict[str, Any]:
        distance = distance_of(moments_of(projection(samples).cpu()), reference)
        return {"sampler": sampler, CALLS: calls, "SSC": scale, DISTANCE: distance, **deficit, **size}

    yield row("data drawn anew", 0, "none", data)
    for solver in settings["samplers"]:
        for num_steps in settings["num_steps"]:
            for scale, ssc in settings["scales"].items():
                sampler = Sampler(solver, num_steps=num_steps, **dict(zip(("s0", "s1", "profile"), ssc, strict=False)))
                yield row(solver, num_steps, str(scale), sampled(sampler, field, settings["num_samples"], seed))


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
    deficits = {row["field"]: 100 * row["deficit at noise"] for row in tables["distances"]}
    table = compare_scores(tables["distances"], KEYS, PLAIN)
    return [row | {"deficit at noise, %": deficits[row["field"]]} for row in table]


def judge(tables: dict[str, Rows]) -> dict[str, Judgement]:
    rows = tables["distances"]
    calls = min({row[CALLS] for row in rows if row[CALLS]}, key=lambda number: abs(number - 50))

    def gain(field: str, sampler: str) -> Judgement:
        cell = {"field": field, "sampler": sampler, CALLS: calls}
        return judge_share(gains(rows, cell | {"SSC": "none"}, cell | {"SSC": "1.1 to 1"}))

    return {
        "ssc_gains_on_exact_images": gain("images", "euler_maruyama"),
        "ssc_gains_on_an_exact_mixture": gain("mixture", "euler_maruyama"),
        "ssc_gains_on_an_exact_mixture_in_the_ode": gain("mixture", "euler"),
    }
