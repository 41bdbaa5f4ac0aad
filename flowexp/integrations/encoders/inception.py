"""The Inception network that FID is defined by, with TensorFlow's weights of 2015 and its resizing."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.integrations.encoders.base import FeatureNet
from flowexp.integrations.encoders.weights import read_state_dict

NUM_SPATIAL_CHANNELS = 7
OFFLINE = "or choose encoder=efficientnet_lite, which needs no download (its distance is not FID)"


class Inception(FeatureNet):
    """Inception V3 as torch-fidelity converts it: the network of the ADM evaluator and of pytorch-fid.

    Pictures are resized to 299 as TensorFlow 1 does, bilinear and without antialiasing. One pass gives

    - features (2048): pool 3, for FID, KID, precision, recall and nearest neighbours;
    - spatial (2023): the first 7 channels of block Mixed_6d at its 17 x 17 places, for ADM's sFID. The order is that of
      TensorFlow, channels last, so that means and covariances compare with those of ADM's reference files;
    - logits (1008): without the classifier's bias, for the Inception Score.

    Arguments:
        weights: the file of weights. None is the one in torch's cache of downloads, fetched where it is not there.

    Raises:
        ValueError: the file is not there, cannot be downloaded, is damaged, or holds the weights of another network.
    """

    name = "inception"
    dim = 2048
    outputs = ("features", "spatial", "logits")

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        path = find_weights(weights)
        tensors, self.weights = read_state_dict(path)
        self.network = _network(tensors, path)
        self._spatial: Tensor | None = None
        # ADM's tensor "mixed_6/conv:0" is the first branch of Mixed_6d, after its normalisation and ReLU
        self.network.Mixed_6d.branch1x1.register_forward_hook(self._keep_spatial)
        self.freeze()

    def _keep_spatial(self, block: torch.nn.Module, inputs: Any, output: Tensor) -> None:
        self._spatial = output[:, :NUM_SPATIAL_CHANNELS].permute(0, 2, 3, 1).flatten(1)

    @property
    def dims(self) -> dict[str, int]:
        return {"features": self.dim, "spatial": NUM_SPATIAL_CHANNELS * 17 * 17, "logits": 1008}

    def features(self, images: Tensor) -> Tensor:
        return self.network(images)[0]

    def read(self, images: Tensor, wanted: Sequence[str]) -> dict[str, Tensor]:
        features = self.features(images)
        assert self._spatial is not None  # the hook ran
        found = {"features": features, "spatial": self._spatial}
        self._spatial = None
        if "logits" in wanted:
            found["logits"] = features @ self.network.fc.weight.T
        return found

    def protocol(self) -> dict[str, Any]:
        return {
            "encoder": self.name,
            "weights_sha256": self.weights,
            "input_size": 299,
            "resize": "bilinear as TensorFlow 1, not antialiased",
            "dim": self.dim,
        }


def _network(tensors: dict[str, Tensor], path: Path) -> Any:
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3, FeatureExtractorInceptionV3

    file = io.BytesIO()
    torch.save(tensors, file)  # torch-fidelity unpickles whatever it is given, so it is given what was checked
    file.seek(0)
    try:
        return FeatureExtractorInceptionV3("inception", ["2048"], file)
    except (RuntimeError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} holds other weights than Inception's: fetch {URL_INCEPTION_V3}, {OFFLINE}") from error


def find_weights(weights: str | Path | None) -> Path:
    """The given file, or the one in torch's cache, downloaded at need.

    Raises:
        ValueError: there is no such file, and no network to fetch it by.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import URL_INCEPTION_V3

    cached = Path(torch.hub.get_dir()) / "checkpoints" / URL_INCEPTION_V3.rsplit("/", 1)[1]
    path = cached if weights is None else Path(weights).expanduser()
    if weights is None and not path.exists():
        _download(URL_INCEPTION_V3, path)
    if not path.is_file():
        raise ValueError(f"there are no Inception weights at {path}: fetch {URL_INCEPTION_V3}, {OFFLINE}")
    return path


def _download(url: str, path: Path) -> None:
    digits = path.stem.rsplit("-", 1)[1]  # the file's name ends with the first digits of its SHA-256
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=digits)
    except (OSError, RuntimeError) as error:
        raise ValueError(
            f"encoder=inception needs weights that could not be downloaded ({error}): put {url} at {path}, {OFFLINE}"
        ) from error
