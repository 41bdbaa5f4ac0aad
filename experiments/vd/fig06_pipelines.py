"""VD Figure 6: what does SSC change in a text-to-image pipeline (SANA, SD3, FLUX), and can a scale help it at all?

`python -m flowexp.reproduce vd/fig06 pipeline=FOLDER prompts=FILE`, with a pipeline that
`DiffusionPipeline.from_pretrained` loads and a file with a prompt a line: samples of the same noise with each scale,
and along the path the norm ratio, the cosine and the best scale of the guided velocity; the samples are those of the
first seed, the numbers a mean over `seeds`. A ratio below 1 with a best
scale of 1 is what a network that underestimates nothing has too: a scale can then only leave the network's own field.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from torch import Tensor

from flowexp.cli.recipes import Recipe, Rows, over_seeds, spread_in
from flowexp.flow.randomness import keyed_generator
from flowexp.measuring.diagnostics.velocity_norms import level_norms, products_of
from flowexp.records.figures import Panel, plot_panels, save_figure
from flowexp.records.files import atomic
from flowexp.records.tables import markdown_table, read_csv, write_csv

NUMBERS = ("ratio", "cosine", "best_scale", "best_scale_se")
PANELS = (
    Panel("length", "|v| / |v*|", {"ratio": "norm ratio"}, level=1.0),
    Panel("direction", "cosine of v and v*", {"cosine": "cosine"}, level=1.0),
    Panel("best scale", "E<v, v*> / E|v|^2", {"best_scale": "best scale"}, level=1.0),
)


def main(recipe: Recipe) -> None:
    """Draws and measures; `flowexp.reproduce` calls it in place of `measure` and `draw`."""
    if not recipe.redraw:
        _measure(recipe)
    rows = over_seeds(read_csv(recipe.results / "norms.csv"), ["t"], NUMBERS)
    save_figure(plot_panels(rows, "t", PANELS, "noise level t"), recipe.results / "norms.png")
    table = markdown_table([told(row) for row in rows])
    atomic.write_text(recipe.results / "table.md", table)
    print(f"\n{table}\nfigures, tables and protocol: {recipe.results}")


def told(row: Mapping[str, Any]) -> dict[str, Any]:
    """A level's numbers, with their spread where there are several seeds."""
    spread = {f"spread of {name}": spread_in(row, name) for name in NUMBERS[:-1]}
    return {name: row[name] for name in ("t", *NUMBERS)} | (spread if row["seeds"] > 1 else {})


def _measure(recipe: Recipe) -> None:
    pipe, prompts = load_pipeline(recipe.pipeline), read_prompts(recipe.prompts)[: recipe.settings.num_prompts]
    call, scales = _accepted(pipe, recipe.settings.call), [float(s0) for s0 in recipe.settings.s0]
    recipe.results.mkdir(parents=True, exist_ok=True)
    seeds = recipe.seeds_of(recipe.seeds)
    images = {s0: samples(pipe, s0, prompts, call, seeds[0]) for s0 in scales}
    save_figure(draw_samples(images, prompts), recipe.results / "samples.png")
    rows = [{"seed": seed, **row} for seed in seeds for row in norms(pipe, prompts, recipe.settings.pairs, call, seed)]
    write_csv(recipe.results / "norms.csv", rows)
    protocol = {
        "pipeline": type(pipe).__name__,
        "scheduler": {key: value for key, value in pipe.scheduler.config.items() if not key.startswith("_")},
        "prompts": prompts,
        "pairs": "the pipeline's own samples of these prompts, each with fresh noise",
        "call": call,
        "seeds": [*seeds],
        "s0": scales,
    }
    atomic.write_json(recipe.results / "protocol.json", protocol)


def load_pipeline(folder: Path | None) -> Any:
    """The pipeline in a folder, on the GPU where there is one.

    Raises:
        ValueError: diffusers is not installed, no folder is given, or it holds no pipeline.
    """
    try:
        from diffusers import DiffusionPipeline
    except ImportError as error:
        raise ValueError(f"this recipe needs diffusers ({error}): pip install 'flowexp[diffusers]'") from error
    if folder is None or not (folder / "model_index.json").is_file():
        raise ValueError(
            f"pipeline must be the folder of a pipeline, with its model_index.json, got {folder}: give "
            "pipeline=FOLDER, such as `hf download NAME --local-dir FOLDER` makes one"
        )
    on_gpu = torch.cuda.is_available()
    pipe = DiffusionPipeline.from_pretrained(folder, torch_dtype=torch.bfloat16 if on_gpu else torch.float32)
    ssc_of(pipe.scheduler)  # before anything is drawn
    pipe.set_progress_bar_config(leave=False)
    return pipe.to("cuda" if on_gpu else "cpu")


def read_prompts(file: Path | None) -> list[str]:
    """The lines of a file that are not empty. Raises ValueError where there are none."""
    if file is None or not file.is_file():
        raise ValueError(f"prompts must be a text file with a prompt a line, got {file}: give prompts=FILE")
    prompts = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if not prompts:
        raise ValueError(f"prompts={file} is empty: write a prompt a line")
    return prompts


def ssc_of(scheduler: Any) -> Any:
    """The scheduler of the same kind with SSC. Raises ValueError where there is none."""
    from flowexp.integrations import diffusers as ours

    kinds = [getattr(ours, name) for name in ours.__all__ if name.startswith("SSC")]
    for kind in kinds:
        if isinstance(scheduler, kind.__bases__):
            return kind
    raise ValueError(
        f"there is no SSC for {type(scheduler).__name__}: give the pipeline one of "
        f"{', '.join(kind.__bases__[0].__name__ for kind in kinds)}"
    )


def samples(pipe: Any, s0: float, prompts: Sequence[str], call: Mapping[str, Any], seed: int) -> list[Any]:
    """A picture of each prompt, with SSC from `s0` to 1; the noise is the same whatever the scale."""
    before = pipe.scheduler
    pipe.scheduler = ssc_of(before).from_config(before.config, s0=s0, s1=1.0)
    try:
        return [
            pipe(prompt, generator=keyed_generator(seed, place), **call).images[0]
            for place, prompt in enumerate(prompts)
        ]
    finally:
        pipe.scheduler = before


def norms(pipe: Any, prompts: Sequence[str], num_pairs: int, call: Mapping[str, Any], seed: int) -> Rows:
    """`LevelNorms` of the pipeline's guided velocity at each level of its grid, from noise to data.

    The pairs are a sample of the pipeline itself with fresh noise: nobody else's pictures are needed, and what the
    pipeline never draws is not seen.
    """
    products: dict[float, list[Tensor]] = {}
    for place, prompt in enumerate(prompts):
        data = pipe(prompt, generator=keyed_generator(seed, place), output_type="latent", **call).images
        for number in range(num_pairs):
            noise = torch.randn(data.shape, generator=keyed_generator(seed, place, number)).to(data)
            for level, each in along_pair(pipe, prompt, data, noise, call):
                products.setdefault(level, []).append(each)
    points = [level_norms(level, torch.cat(each, dim=1)) for level, each in sorted(products.items())]
    return [asdict(point) for point in points]


def along_pair(
    pipe: Any, prompt: str, data: Tensor, noise: Tensor, call: Mapping[str, Any]
) -> Iterator[tuple[float, Tensor]]:
    """Each level of the grid with the `products_of` the guided velocity at (1 - t) data + t noise.

    The pipeline runs as always, but for a scheduler whose step goes to the next level of the pair, whatever the network
    says; it begins at the noise, which is the pair at the first level of 1 (of SANA: 0.9997).
    """
    before, found = pipe.scheduler, []

    def step(self: Any, model_output: Tensor, timestep: Any, sample: Tensor, *args: Any, **keys: Any) -> Any:
        if self.step_index is None:
            self._init_step_index(timestep)
        found.append((float(self.sigmas[self.step_index]), products_of(model_output, noise, -data).cpu()))
        self._step_index += 1
        return (torch.lerp(data, noise, float(self.sigmas[self.step_index])).to(sample.dtype),)

    step.__signature__ = inspect.signature(type(before).step)  # type: ignore[attr-defined]
    along: Any = type("AlongPair", (type(before),), {"step": step})
    pipe.scheduler = along.from_config(before.config)
    try:
        pipe(prompt, latents=noise, generator=keyed_generator(0), output_type="latent", **call)
    finally:
        pipe.scheduler = before
    yield from found


def draw_samples(images: Mapping[float, Sequence[Any]], prompts: Sequence[str]) -> Figure:
    """The pictures: a prompt a row, a scale a column."""
    figure = Figure(figsize=(2.4 * len(images), 2.6 * len(prompts)), dpi=150, layout="constrained")
    panels = figure.subplots(len(prompts), len(images), squeeze=False)
    for across, (s0, pictures) in enumerate(images.items()):
        for down, picture in enumerate(pictures):
            panels[down][across].imshow(picture)
            panels[down][across].set_axis_off()
            panels[down][across].set_title(f"s0 = {s0:g}" if across else prompts[down][:40], fontsize="small")
    return figure


def _accepted(pipe: Any, call: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that this pipeline takes."""
    takes = inspect.signature(type(pipe).__call__).parameters
    return {str(key): value for key, value in call.items() if key in takes}
