"""Weight files, read without running code from them and identified by their content."""

from __future__ import annotations

import hashlib
import io
import pickle
from pathlib import Path

import torch
from torch import Tensor


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a PyTorch file by name, and the first 16 digits of its SHA-256, which name it in a protocol.

    Raises:
        ValueError: the file is damaged, or holds more than tensors.
    """
    content = path.read_bytes()
    try:
        tensors = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged or is no file of plain weights: fetch it again ({type(error).__name__})"
        ) from error
    return tensors, hashlib.sha256(content).hexdigest()[:16]
