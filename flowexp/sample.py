"""`python -m flowexp.sample run=FOLDER [sampler=heun sampler.s0=1.1 ...]`: draws samples from a run's EMA weights."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.records.run_folder import RunFolder

IN_GRID = 256  # samples in the picture; all are in the file


def run(config: DictConfig, folder: RunFolder) -> None:
    """Draws images; writes `samples.png` (a grid), `samples.npz` (N x H x W x 3, for ADM) and `summary.json`."""
    from pathlib import Path

    from flowexp.cli.assembly import building, hardware, rebuilding
    from flowexp.cli.assembly.autoguidance import guided_by
    from flowexp.records.files import atomic

    _check(config)
    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = rebuilding.load_run(Path(config.run), checkpoint, with_data=False)
    if config.prompts is not None:
        module.conditions = _prompted(module, datamodule, list(config.prompts))
    elif module.backbone.takes == "text":
        datamodule.setup()  # the captions
    module.choose_weights(config.ema)
    module.sampler = building.build(config.sampler)
    module.to(hardware.resolve_device(config.device))
    with guided_by(module, config.guide, config.guide_checkpoint) as guide:
        folder.begin(config)
        nfe = _draw(module, datamodule, config, folder)
    protocol = module.sampler.protocol() | {
        "nfe": nfe,
        "seed": config.seed,
        "num_samples": config.num_samples,
        "labels": _labels(module, config),
        "weights": module.weights_name,
        "guide": guide,
    }
    if config.prompts is not None:
        protocol["captions"] = {"order": "prompts in turns", "prompts": list(config.prompts)}
    atomic.write_json(
        folder.summary_file, {"run": config.run, "step": step, "scalars": {"samples/nfe": nfe}, "protocol": protocol}
    )
    print(f"{config.num_samples} samples of {nfe} network calls each, and the same as samples.npz:")
    print(folder.path / "samples.png")


def _check(config: DictConfig) -> None:
    """Raises ValueError for a number out of range, before the run is read."""
    for key, least in {"num_samples": 1, "batch_size": 1, "seed": 0}.items():
        if config[key] < least:
            raise ValueError(f"{key} must be at least {least}, got {config[key]}")
    if config.prompts is not None and not (_is_list_of_texts(config.prompts) and len(config.prompts)):
        raise ValueError(f"prompts must be a list of texts, as in prompts=[a cat,a dog], got {config.prompts}")
    if config.seed >= 2**32:
        raise ValueError(f"seed must lie in 0..{2**32 - 1}, got {config.seed}")


def _is_list_of_texts(value: Any) -> bool:
    from omegaconf import ListConfig

    return isinstance(value, ListConfig) and all(isinstance(each, str) for each in value)


def _prompted(module: Any, datamodule: Any, prompts: list[str]) -> Any:
    """What gives sample i the prompt i mod their number. Raises ValueError for a network that takes no text."""
    if module.backbone.takes != "text":
        raise ValueError("prompts are for networks that take text, and this run's takes none: leave prompts out")

    def conditions(indices: Sequence[int], device: Any = "cpu") -> Any:
        return datamodule.embed_texts([prompts[index % len(prompts)] for index in indices], device)

    return conditions


def _draw(module: Any, datamodule: Any, config: DictConfig, folder: RunFolder) -> int:
    """Writes the samples while they are drawn: of all, one batch is in memory. Returns the network calls of each."""
    import torch

    from flowexp.measuring.metrics import write_adm_batches
    from flowexp.records.figures import image_grid, save_image

    shown: list[Any] = []
    nfe = 0

    def batches() -> Iterator[Any]:
        nonlocal nfe
        for samples in _samples(module, config):
            pictures, nfe = datamodule.to_pictures(samples.images).cpu(), samples.nfe
            shown.extend(pictures[: IN_GRID - len(shown)])
            yield pictures

    _check_room(folder, config.num_samples, datamodule.picture_resolution)
    with module.averaged():
        write_adm_batches(folder.path / "samples.npz", batches(), config.num_samples)
    columns = None if config.prompts is None else min(len(config.prompts), len(shown))
    save_image(image_grid(torch.stack(shown), columns), folder.path / "samples.png")
    return nfe


def _check_room(folder: RunFolder, num_samples: int, resolution: int) -> None:
    """Raises ValueError where the disk cannot hold all samples: it would be full after hours."""
    from shutil import disk_usage

    needed, free = num_samples * resolution**2 * 3, disk_usage(folder.path).free
    if needed > free:
        raise ValueError(
            f"num_samples={num_samples} takes {needed / 1e9:.1f} GB in {folder.path}, where {free / 1e9:.1f} GB are "
            "left: draw fewer, or give run_dir=FOLDER on another disk"
        )


def _samples(module: Any, config: DictConfig) -> Iterator[Any]:
    from tqdm import tqdm

    for start in tqdm(range(0, config.num_samples, config.batch_size), desc="sampling", unit="batch"):
        indices = range(start, min(start + config.batch_size, config.num_samples))
        samples = module.sample(indices, seed=config.seed, label=config.label, labels=config.labels)
        if not samples.images.isfinite().all():  # as bytes they would look like any other picture
            raise ValueError("some samples are NaN or infinite: training has diverged, or num_steps is too small")
        yield samples


def _labels(module: Any, config: DictConfig) -> str:
    """What the samples are conditioned on, in the words of a card; or the one class of all."""
    return str(module.labels_in_words(config.labels if config.label is None else f"class {config.label}"))


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("sample", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
