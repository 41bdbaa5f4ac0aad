"""`python -m flowexp.export run=RUN to=DIR`: a run's network as a folder of plain data that others can load.

format=flowexp, for `flowexp.load(DIR)` and `train init=DIR`; format=diffusers, for `DiffusionPipeline.from_pretrained`.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pathlib import Path

    from omegaconf import DictConfig

    from flowexp.integrations.published import PublishedModel
    from flowexp.records.run_folder import RunFolder

SAMPLES = "samples.png"
OF_AN_EXPORT = {
    "model.safetensors", "config.json", "README.md", SAMPLES, "model_index.json", "transformer", "scheduler", "vae",
    "log.txt",
}  # fmt: skip


def run(config: DictConfig, folder: RunFolder) -> None:
    """Writes the network of `config.run` into `config.to`."""
    from pathlib import Path

    from flowexp.cli.assembly import building, hardware, rebuilding
    from flowexp.cli.assembly.publishing import publish

    to = Path(config.to)
    _check(config, to)
    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = rebuilding.load_run(Path(config.run), checkpoint, with_data=False)
    module.choose_weights(config.ema)
    module.sampler = building.build(config.sampler)
    module.to(hardware.resolve_device(config.device))
    model = publish(config, module, datamodule, step)
    if config.format == "diffusers":
        from flowexp.integrations.diffusers import save_pipeline

        save_pipeline(model, to, None if config.autoencoder is None else Path(config.autoencoder))
    else:
        model.save_pretrained(to)
    _write_card(config, module, datamodule, model, to)
    (to / "log.txt").unlink(missing_ok=True)  # of an attempt that failed
    print(_how_to_load(config, to))


def _check(config: DictConfig, to: Path) -> None:
    """Raises ValueError for a value out of range, or a folder that holds something else, before the run is read."""
    from flowexp.cli.assembly.publishing import check_format

    check_format(config.format)
    if config.num_samples < 0 or not 0 <= config.seed < 2**32:
        raise ValueError(
            f"num_samples must be at least 0 and seed lie in 0..{2**32 - 1}, got {config.num_samples} and {config.seed}"
        )
    if config.autoencoder is not None and config.format != "diffusers":
        raise ValueError("autoencoder is part of a pipeline: add format=diffusers, or leave it out")
    others = sorted(file.name for file in to.iterdir() if file.name not in OF_AN_EXPORT) if to.is_dir() else []
    if others:
        raise ValueError(f"to={to} holds {others[0]}, which no export has: choose an empty folder, or a new one")


def _write_card(config: DictConfig, module: Any, datamodule: Any, model: PublishedModel, to: Path) -> None:
    """README.md, and the samples that it shows."""
    from pathlib import Path

    from flowexp.integrations.model_card import model_card
    from flowexp.records.figures import image_grid, save_image
    from flowexp.records.files import atomic
    from flowexp.records.run_folder import RunFolder

    if config.num_samples:
        save_image(image_grid(_pictures(config, module, datamodule)), to / SAMPLES)
    summary = RunFolder(Path(config.run)).summary()
    card = model_card(
        about=model.about,
        sampler=model.sampler.protocol(),
        numbers=summary.get("scalars", {}),
        protocols=summary.get("protocol", {}),
        license=config.license,
        samples=SAMPLES if config.num_samples else None,
        of_diffusers=config.format == "diffusers",
    )
    atomic.write_text(to / "README.md", card)


def _pictures(config: DictConfig, module: Any, datamodule: Any) -> Any:
    if module.backbone.takes == "text":
        datamodule.setup()  # the captions
    with module.averaged():
        samples = module.sample(range(config.num_samples), seed=config.seed)
    return datamodule.to_pictures(samples.images).cpu()


def _how_to_load(config: DictConfig, to: Path) -> str:
    if config.format == "flowexp":
        return f"the model: {to}\nimport flowexp; model = flowexp.load({str(to)!r}); images = model.sample(16).images"
    return (
        f"the pipeline: {to}\nimport flowexp.integrations.diffusers\n"
        f"pipe = diffusers.DiffusionPipeline.from_pretrained({str(to)!r})"
    )


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("export", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
