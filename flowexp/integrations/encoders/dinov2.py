"""DINOv2 (Oquab et al. 2023), ViT-B/14: REPA's teacher, and features for a Frechet distance."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.integrations.encoders.base import FeatureNet
from flowexp.integrations.encoders.weights import read_state_dict
from flowexp.records.files.fingerprint import sha256_of

MODEL = "vit_base_patch14_dinov2"
REPOSITORY = "timm/vit_base_patch14_dinov2.lvd142m"  # on the Hugging Face hub
PATCH = 14
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's


class DINOv2(FeatureNet):
    """The class token (768) behind the last normalisation of DINOv2 ViT-B/14.

    Pictures are resized, bicubic with antialiasing, to `input_size`. Published Frechet distances on DINOv2 take
    ViT-L/14: compare with none of them.

    Arguments:
        weights: a file of weights, Meta's or timm's. None is the one in the cache of the Hugging Face hub, fetched
            where it is not there.
        input_size: pixels per side, a multiple of 14.

    Raises:
        ValueError: the weights are not there, cannot be downloaded, or are those of another network.
    """

    name = "dinov2"
    dim = 768

    def __init__(self, weights: str | Path | None = None, input_size: int = 224) -> None:
        super().__init__()
        if input_size < PATCH or input_size % PATCH:
            raise ValueError(f"input_size must be a multiple of {PATCH}, got {input_size}")
        self.input_size = input_size
        self.network, self.weights = load_dinov2(weights)
        self.preprocess = Preprocess(antialias=True)
        self.freeze()

    def features(self, images: Tensor) -> Tensor:
        return self.network.forward_features(self.preprocess(images, self.input_size))[:, 0]  # type: ignore[operator]

    def protocol(self) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "weights_sha256": self.weights,
            "input_size": self.input_size,
            "resize": "bicubic, antialiased",
            "dim": self.dim,
        }


class Preprocess(nn.Module):
    """What DINOv2 was trained on: uint8 (B, 3, H, W) to normalised float (B, 3, size, size).

    In REPA's order: normalised first and then resized, so that bicubic overshoots remain.

    Arguments:
        antialias: whether the resizing is antialiased.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, antialias: bool) -> None:
        super().__init__()
        self.antialias = antialias
        for name, values in (("mean", MEAN), ("std", STD)):  # on the device once: REPA comes here at every step
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    def forward(self, images: Tensor, size: int) -> Tensor:
        normalised = (images.float() / 255 - self.mean) / self.std
        return F.interpolate(normalised, (size, size), mode="bicubic", antialias=self.antialias)


def load_dinov2(weights: str | Path | None = None) -> tuple[nn.Module, str]:
    """timm's network for pictures of any multiple of 14 pixels, and the fingerprint of its weights.

    Positions, trained on a grid of 37, are resampled to that of the picture (bicubic, antialiased), as REPA does.
    """
    import timm
    from timm.models.vision_transformer import checkpoint_filter_fn

    path = _download() if weights is None else Path(weights).expanduser()
    if not path.is_file():
        raise ValueError(f"there are no DINOv2 weights at {path}: give the file of {MODEL}, or null to fetch it")
    saved, fingerprint = _read(path)
    network = timm.create_model(MODEL, pretrained=False, num_classes=0, dynamic_img_size=True)
    try:
        network.load_state_dict(checkpoint_filter_fn(saved, network))
    except (RuntimeError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} holds the weights of another network than {MODEL}: {error}") from error
    return network, fingerprint


def _read(path: Path) -> tuple[dict[str, Tensor], str]:
    if path.suffix != ".safetensors":
        return read_state_dict(path)
    from safetensors import SafetensorError
    from safetensors.torch import load

    content = path.read_bytes()
    try:
        return load(content), sha256_of(content)
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged: fetch it again ({error})") from error


def _download() -> Path:
    """The file of weights in the hub's cache, fetched at need."""
    from huggingface_hub import hf_hub_download

    try:
        return Path(hf_hub_download(REPOSITORY, "model.safetensors"))
    except (OSError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"DINOv2 needs weights that could not be downloaded ({type(error).__name__}): put model.safetensors of "
            f"{REPOSITORY} anywhere and give its path as weights, or choose efficientnet_lite, which needs no download"
        ) from error
