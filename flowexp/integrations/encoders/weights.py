"""Weight files, read without running code from them and identified by their content."""

from __future__ import annotations

import io
import pickle
import re
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from flowexp.records.files.fingerprint import sha256_of

_OBJECT = (
    r"(?:Unsupported global: GLOBAL|Unsupported class|type) ([\w.]+)"  # torch's words for what it refuses to build
)


def read_state_dict(path: Path) -> tuple[dict[str, Tensor], str]:
    """The tensors of a PyTorch file by name, and the first 16 digits of its SHA-256, which name it in a protocol.

    They may have any shape: the network that loads them checks it.

    Raises:
        ValueError: the file is damaged, or holds objects.
    """
    return read_plain(path)


def read_plain(path: Path, classes: Sequence[type] = ()) -> tuple[Any, str]:
    """What a PyTorch file holds, tensors and plain containers, and the first 16 digits of its SHA-256.

    classes: of objects that may be in it too; building one must run no code of the file's.

    Raises:
        ValueError: the file is damaged, or holds objects of other classes.
    """
    content = path.read_bytes()
    if damaged := _damaged_record(content):
        raise ValueError(f"{path} is damaged (its record {damaged} differs from what was written): fetch it again")
    try:
        with torch.serialization.safe_globals([*classes]):
            found = torch.load(io.BytesIO(content), map_location="cpu", weights_only=True)
    except Exception as error:  # bytes that are no pickle make the unpickler stumble in any way, KeyError: 101 too
        raise ValueError(_refusal(path, error)) from error
    return found, sha256_of(content)


def _damaged_record(content: bytes) -> str | None:
    """The record of a torch file whose checksum is another, which torch does not look at; None where all are whole."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            return archive.testzip()
    except Exception:  # no archive, as before torch 1.6, or so damaged that torch will say so
        return None


def tensors_of(content: Any, path: Path) -> dict[str, Tensor]:
    """The content of a file as a state dict: tensors of any shape by name.

    Raises:
        ValueError: it is something else.
    """
    if not isinstance(content, Mapping) or not content:
        raise ValueError(f"{path} must hold tensors by name, a state dict, and holds {_kind(content)}")
    others = [name for name, value in content.items() if not (isinstance(name, str) and isinstance(value, Tensor))]
    if others:
        raise ValueError(
            f"{path} must hold tensors by name, a state dict, and its {others[0]!r} is {_kind(content[others[0]])}: "
            "save the state dict alone"
        )
    return dict(content)


def _kind(value: Any) -> str:
    return "nothing" if isinstance(value, Mapping) and not value else f"a {type(value).__name__}"


def _refusal(path: Path, error: Exception) -> str:
    named = re.search(_OBJECT, str(error)) if isinstance(error, pickle.UnpicklingError) else None
    if named:
        return (
            f"{path} is damaged or is no file of plain weights: it holds an object of {named.group(1)}, which is not "
            "read since it could run code; save the state dict alone"
        )
    return f"{path} is damaged or is no file of plain weights: fetch it again ({type(error).__name__})"
