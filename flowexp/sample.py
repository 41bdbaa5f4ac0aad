"""`python -m flowexp.sample run=FOLDER [sampler=heun sampler.s0=1.1 ...]`: draws samples from a run's EMA weights."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from omegaconf import DictConfig

    from flowexp.runs import RunFolder


def run(config: DictConfig, folder: RunFolder) -> None:
    """Draws images and writes `samples.png` (a grid), `samples.npz` (N x H x W x 3, for ADM) and `summary.json`."""
    from pathlib import Path

    from flowexp import building
    from flowexp.guides import guided_by

    checkpoint = None if config.checkpoint is None else Path(config.checkpoint)
    module, datamodule, step = building.load_run(Path(config.run), checkpoint, with_data=False)
    if module.backbone.takes == "text":
        datamodule.setup()  # the captions
    module.sampler = building.build(config.sampler)
    module.to(building.resolve_device(config.device))
    with guided_by(module, config.guide, config.guide_checkpoint) as guide:
        images, nfe = _draw(module, datamodule, config)
    _write(folder, images)
    protocol = module.sampler.protocol() | {
        "nfe": nfe,
        "seed": config.seed,
        "num_samples": config.num_samples,
        "weights": "ema",
        "guide": guide,
    }
    folder.write_json(
        folder.summary_file, {"run": config.run, "step": step, "scalars": {"nfe": nfe}, "protocol": protocol}
    )
    print(f"{config.num_samples} samples of {nfe} network calls each, and the same as samples.npz:")
    print(folder.path / "samples.png")


def _draw(module: Any, datamodule: Any, config: DictConfig) -> tuple[Any, int]:
    import torch
    from tqdm import tqdm

    parts, nfe = [], 0
    with module.averaged():
        for start in tqdm(range(0, config.num_samples, config.batch_size), desc="sampling", unit="batch"):
            indices = range(start, min(start + config.batch_size, config.num_samples))
            samples = module.sample(indices, seed=config.seed, label=config.label)
            parts.append(datamodule.to_pictures(samples.images).cpu())
            nfe = samples.nfe
    return torch.cat(parts), nfe


def _write(folder: RunFolder, images: Any) -> None:
    from flowexp.figures import image_grid, save_image
    from flowexp.metrics import write_adm_batch

    write_adm_batch(folder.path / "samples.npz", images)
    save_image(image_grid(images[:256]), folder.path / "samples.png")


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.launch import open_door

    return open_door("sample", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
