"""Stable Diffusion's autoencoder: pictures to latents an eighth of their side, and back."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn

from flowexp.integrations.encoders.pretrained import Pretrained


class Posterior(NamedTuple):
    """mean, std: (B, 4, H / 8, W / 8), of the latents of a picture, not scaled."""

    mean: Tensor
    std: Tensor


class VAE(Pretrained):
    """A frozen `AutoencoderKL` (Rombach et al. 2022) in float32.

    Arguments:
        name: what a latent cache calls it, such as sd_vae_ft_mse.
        weights: its name at Hugging Face, or a folder that `save_pretrained` wrote.
        scale: what latents are multiplied by to become the data of a flow, near unit variance (0.18215 for SD's).
        batch_size: pictures at once; decoding one of 256 x 256 takes about 0.7 GB.

    Raises:
        ValueError: scale is not positive.
    """

    def __init__(self, name: str, weights: str, scale: float = 0.18215, batch_size: int = 16) -> None:
        super().__init__(weights)
        if scale <= 0:
            raise ValueError(f"scale must be positive, got {scale}")
        self.name = name
        self.scale = scale
        self.batch_size = batch_size

    def load(self, source: str) -> nn.Module:
        from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

        return AutoencoderKL.from_pretrained(source, low_cpu_mem_usage=False)

    def encode(self, images: Tensor) -> Posterior:
        """The posterior of pictures, float (B, 3, H, W) in [-1, 1]; a latent is mean + std * noise."""
        network = self.on(images.device)

        def moments(part: Tensor) -> Tensor:
            found = network.encode(part).latent_dist
            return torch.stack((found.mean, found.std), dim=1)

        mean, std = self._in_parts(moments, images).unbind(1)
        return Posterior(mean, std)

    def decode(self, latents: Tensor) -> Tensor:
        """Pictures, float (B, 3, H, W) in about [-1, 1], of latents (B, 4, H / 8, W / 8) that are not scaled."""
        network = self.on(latents.device)
        return self._in_parts(lambda part: network.decode(part).sample, latents)

    @torch.no_grad()
    def _in_parts(self, function: Callable[[Tensor], Tensor], batch: Tensor) -> Tensor:
        with torch.autocast(batch.device.type, enabled=False):
            return torch.cat([function(part) for part in batch.float().split(self.batch_size)])
