"""Networks of diffusers and transformers: loaded by name or folder when they are first used, frozen, fingerprinted."""

from __future__ import annotations

from abc import ABC, abstractmethod
from functools import cached_property
from typing import Any

import torch
from torch import nn

from flowexp.records.files import fingerprint

_EXTRA = 'pip install "flowexp[latents]"'


class Pretrained(ABC):
    """A frozen network of somebody else, which stays out of every module: no checkpoint and no average should hold it.

    Making one costs nothing. Its weights are read when it is first used, in float32, and move to where the data is.

    Arguments:
        weights: a name at Hugging Face, found in its cache or downloaded, or a local folder.
    """

    def __init__(self, weights: str) -> None:
        self.weights = weights

    @property
    def source(self) -> str:
        """The argument of the library: `weights`, unless a subclass has their place."""
        return self.weights

    @abstractmethod
    def load(self, source: str) -> nn.Module:
        """Reads the network."""

    @cached_property
    def network(self) -> Any:
        """The network in eval mode, without gradients.

        Raises:
            ValueError: the libraries are missing, or the weights are neither here nor to be downloaded.
        """
        source = self.source
        try:
            return self.load(source).requires_grad_(False).eval()
        except ImportError as error:
            raise ValueError(f"{self.weights} needs a library that is missing ({error}): {_EXTRA}") from error
        except (OSError, ValueError) as error:
            reason = str(error).strip().split("\n")[0]
            raise ValueError(
                f"{self.weights} is neither a folder with such a network nor in Hugging Face's cache, and could not be "
                f"downloaded ({reason}): run `hf download {self.weights}` where there is a network, or give a folder"
            ) from error

    def on(self, device: torch.device | str) -> Any:
        """The network, on a device."""
        return self.network.to(device)

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that identify the weights, wherever they were loaded from."""
        return fingerprint.of_weights(sorted(self.network.state_dict().items()))
