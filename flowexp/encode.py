"""`python -m flowexp.encode data=imagenet [output=FOLDER]`: a dataset's latents, and its captions embedded.

Work goes by shards, so it can be stopped, continued and divided: over the processes of torchrun, or by hand with
shard=0/4 ... shard=3/4 on any machines that share the folder. Reading the cache checks that no shard is missing.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy as np
    import torch
    from omegaconf import DictConfig

    from flowexp.data import Captioned, CaptionedSet, ImageDataModule, Images, LatentCache, Manifest, Shard
    from flowexp.integrations.encoders.vae import VAE
    from flowexp.records.run_folder import RunFolder

_CAPTIONS_AT_ONCE = 256


def run(config: DictConfig, folder: RunFolder) -> None:
    """Encodes this process's share of the shards that are not there yet."""
    from flowexp.cli.assembly import building, hardware
    from flowexp.data import LatentCache

    rank, num_shares = share_of(config.shard)
    for key in ("shard_size", "batch_size"):
        if config[key] < 1:
            raise ValueError(f"{key} must be at least 1, got {config[key]}")
    datamodule = building.build_datamodule(config)
    vae = building.build(config.vae)
    cache, device = LatentCache(config.output), _device(hardware.resolve_device(config.device))
    folder.begin(config)
    cache.begin(describe(datamodule, vae, config.shard_size, device), _small_arrays(datamodule, device))
    own = [shard for shard in list(cache.shards())[rank::num_shares] if not cache.has(shard)]
    encode(datamodule, vae, cache, own, device, config.batch_size)
    left = sum(not cache.has(shard) for shard in cache.shards())
    print(f"{cache.folder}: " + (f"{left} shards are left to other processes" if left else "complete"))


def share_of(shard: str | None) -> tuple[int, int]:
    """Which share of how many: from `shard`, such as 0/4, else from the launcher's RANK and WORLD_SIZE, else all.

    Raises:
        ValueError: shard is not two such numbers.
    """
    text = shard if shard is not None else f"{os.environ.get('RANK', 0)}/{os.environ.get('WORLD_SIZE', 1)}"
    rank, _, total = text.partition("/")
    if not (rank.isdigit() and total.isdigit() and int(rank) < int(total)):
        raise ValueError(f"shard must be 0/4 for the first of four shares, ..., 3/4 for the last, got {shard}")
    return int(rank), int(total)


def _device(device: torch.device) -> torch.device:
    """The device of this process, where a launcher started several."""
    import torch

    several = device.type != "cpu" and device.index is None and "LOCAL_RANK" in os.environ
    return torch.device(device.type, int(os.environ["LOCAL_RANK"])) if several else device


def describe(datamodule: ImageDataModule, vae: VAE, shard_size: int, device: torch.device) -> Manifest:
    """What the cache will hold.

    Raises:
        ValueError: the dataset is no colour pictures, or of another size than the autoencoder divides, or the weights
            cannot be had.
    """
    from flowexp.data import Captioned, Manifest
    from flowexp.data.sets.identity import identity_of

    splits, text = _splits(datamodule), datamodule.text if isinstance(datamodule, Captioned) else None
    return Manifest(
        dataset=datamodule.name,
        resolution=datamodule.resolution,
        num_images={split: len(images) for split, images in splits.items()},
        images={split: identity_of(images) for split, images in splits.items()},
        flips=2 if datamodule.flip else 1,
        vae=vae.name,
        vae_weights=vae.fingerprint,
        scale=vae.scale,
        shape=_latent_shape(datamodule, vae, device),
        text=text.name if text else None,
        text_weights=text.fingerprint if text else None,
        text_shape=list(text.shape) if text else None,
        shard_size=shard_size,
    )


def _latent_shape(datamodule: ImageDataModule, vae: VAE, device: torch.device) -> list[int]:
    """(C, h, w) of a latent, read off one."""
    import torch

    side = datamodule.resolution
    if datamodule.channels != 3 or side % 8:
        raise ValueError(
            f"an autoencoder needs colour pictures whose side is a multiple of 8, got {datamodule.name} of "
            f"{datamodule.channels} x {side} x {side}: choose data=imagenet or data=coco, or another data.resolution"
        )
    return list(vae.encode(torch.zeros(1, 3, side, side, device=device)).mean.shape[1:])


def _splits(datamodule: ImageDataModule) -> dict[str, Images]:
    return {"train": datamodule.train, "test": datamodule.test}


def _small_arrays(datamodule: ImageDataModule, device: torch.device) -> dict[str, np.ndarray]:
    """Labels, and where there are captions how many each image has and what the empty one is."""
    import numpy as np

    from flowexp.data import Captioned, CaptionedSet

    arrays = {f"{split}_labels": images.labels.numpy() for split, images in _splits(datamodule).items()}
    for split, images in _splits(datamodule).items():
        if isinstance(images, CaptionedSet):
            arrays[f"{split}_captions"] = images.captions.counts.numpy()
    if isinstance(datamodule, Captioned) and (null_text := datamodule.null_text(device)) is not None:
        arrays["null_text"] = null_text.cpu().numpy().astype(np.float16)
    return arrays


def encode(
    datamodule: ImageDataModule,
    vae: VAE,
    cache: LatentCache,
    shards: list[Shard],
    device: torch.device,
    batch_size: int,
) -> None:
    """Writes these shards, the captions of each before its latents."""
    from tqdm import tqdm

    from flowexp.data import Captioned, CaptionedSet

    with tqdm(total=sum(shard.stop - shard.start for shard in shards), desc="encoding", unit="image") as bar:
        for shard in shards:
            if cache.has(shard):  # by another process, meanwhile
                bar.update(shard.stop - shard.start)
                continue
            images = _splits(datamodule)[shard.split]
            if isinstance(datamodule, Captioned) and isinstance(images, CaptionedSet):
                captions = captions_of(datamodule, images, shard)
                cache.write_text(shard, _embeddings(datamodule, captions, device))
            cache.write(shard, _latents(vae, images, shard, cache.manifest.flips, device, batch_size, bar))


def captions_of(datamodule: Captioned, images: CaptionedSet[Any], shard: Shard) -> list[str]:
    """All captions of a shard's images, image after image."""
    own = slice(shard.start, shard.stop)
    numbers = zip(images.captions.starts[own].tolist(), images.captions.counts[own].tolist(), strict=True)
    texts = datamodule.texts[shard.split]
    return [text for start, count in numbers for text in texts[start : start + count]]


def _embeddings(datamodule: Captioned, captions: list[str], device: torch.device) -> Iterator[np.ndarray]:
    for start in range(0, len(captions), _CAPTIONS_AT_ONCE):
        assert datamodule.text is not None
        yield datamodule.text.encode(captions[start : start + _CAPTIONS_AT_ONCE], device).half().cpu().numpy()


def _latents(
    vae: VAE, images: Images, shard: Shard, flips: int, device: torch.device, batch_size: int, bar: Any
) -> Iterator[np.ndarray]:
    """Mean and deviation of a shard's pictures, as they are and mirrored: (rows, flips, 2, C, h, w) float16."""
    import torch

    from flowexp.data import to_float
    from flowexp.data.prefetch import ahead

    parts = torch.arange(shard.start, shard.stop).split(batch_size)
    for pictures in ahead(lambda rows: images.select(rows).images, parts, images.prefetch):
        data = to_float(pictures.to(device))
        both = [torch.stack(vae.encode(view), dim=1) for view in (data, data.flip(-1))[:flips]]
        yield torch.stack(both, dim=1).half().cpu().numpy()
        bar.update(len(pictures))


def main() -> int:
    """The command line. Returns the exit code."""
    from flowexp.cli.launch import open_door

    return open_door("encode", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
