"""A checkpoint that is a folder, to which each process has written its share (torch.distributed.checkpoint).

    step_00001000.ckpt/
        __0_0.distcp    parts of tensors, each an archive with checksums; `__1_0.distcp` of the second process
        .metadata       where each part of each tensor lies
        run.pt          all that is no tensor, with the shapes and dtypes of those, and the checksum of .metadata

The folder gets its name when all shares are on the disk, so that a kill at any instant leaves it whole or not at all.
Any number of processes can read it, one without a process group too.
"""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zlib
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import Tensor
from torch.distributed.checkpoint.metadata import Metadata
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Shard
from torch.distributed.tensor import empty as empty_share

from flowexp.records.files.atomic import move_away, remove, replacing
from flowexp.training.checkpoints import archives
from flowexp.training.checkpoints.archives import CheckpointError

_REST = "run.pt"
_TABLE = ".metadata"
_OF_A_TABLE = {  # all that a table is made of, beside dtypes
    "torch.distributed.checkpoint.metadata": {
        "ChunkStorageMetadata", "Metadata", "MetadataIndex", "TensorProperties", "TensorStorageMetadata",
        "_MEM_FORMAT_ENCODING",
    },
    "torch.distributed.checkpoint.filesystem": {"_StorageInfo"},
    "torch.serialization": {"_get_layout"},
    "torch": {"Size"},
}  # fmt: skip


@dataclass
class Saving:
    """A checkpoint that is being written to `partial` while training goes on."""

    path: Path
    partial: Path
    written: Future[Any]

    def wait(self) -> None:
        """Returns when the checkpoint is on the disk. Raises CheckpointError, on all processes if on one."""
        try:
            self.written.result()
        except (Exception, dcp.CheckpointException) as error:
            remove(self.partial)
            raise archives.not_saved(self.path, _reason(error)) from error


def save(content: dict[str, Any], path: Path, partial: Path, group: dist.ProcessGroup, is_first: bool) -> Saving:
    """Copies what `content` holds now, and begins to write it; all processes must call this.

    Tensors that processes share (DTensor) are written by all, everything else as the first process has it.

    Arguments:
        path, partial: the folder to be, and its name until then; the same on all processes.
        group: of all processes, on the CPU, and of nothing else: it works beside the training.
    """
    tensors: dict[str, Tensor] = {}

    def take(key: str, value: Tensor) -> Tensor:
        if is_first or isinstance(value, DTensor):
            tensors[key] = value
        return torch.empty(value.shape, dtype=value.dtype, device="meta")

    rest = {"content": _mapped(content, take), "shared": [k for k, v in tensors.items() if isinstance(v, DTensor)]}
    writer = _Writer(path, partial, rest)
    return Saving(
        path, partial, cast("Future[Any]", dcp.async_save(tensors, storage_writer=writer, process_group=group))
    )


def check(path: Path) -> None:
    """Compares everything in the folder with its checksums.

    Raises:
        FileNotFoundError: there is no such folder.
        CheckpointError: it is damaged, or holds anything that would have to run code to be loaded.
    """
    try:
        table = (path / _TABLE).read_bytes()
        if zlib.crc32(table) != _rest(path)["table"]:
            raise CheckpointError(f"{path} is damaged (its {_TABLE} differs from what was written)")
        _check_parts(path, _read_table(path).storage_data.values())
    except FileNotFoundError as error:
        if not path.exists():
            raise FileNotFoundError(f"no checkpoint at {path}") from error
        raise CheckpointError(f"{path} is damaged (a file of it is gone)") from error


def load(
    path: Path,
    map_location: Any = "cpu",
    only: str = "",
    mesh: DeviceMesh | None = None,
    group: dist.ProcessGroup | None = None,
) -> dict[str, Any]:
    """The content of a folder that `check` has passed.

    Arguments:
        only: how the keys of tensors that are read begin, as in `state_dict/`; others stay on the meta device.
        mesh: over which tensors that were shared are shared again, along their first axis as FSDP2 does; without it,
            they are whole.
        group: of all processes of the mesh, on the CPU.
    """
    rest, tensors = _rest(path), dict[str, Tensor]()
    shared = set(rest["shared"])

    def make_room(key: str, like: Tensor) -> Tensor:
        if not key.startswith(only):
            return like
        if mesh is not None and key in shared:
            tensors[key] = empty_share(*like.shape, dtype=like.dtype, device_mesh=mesh, placements=[Shard(0)])
        else:
            tensors[key] = torch.empty(like.shape, dtype=like.dtype, device=map_location)
        return tensors[key]

    content = _mapped(rest["content"], make_room)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # that one process reads
            dcp.load(tensors, storage_reader=_Reader(path), process_group=group, no_dist=mesh is None)
    except dcp.CheckpointException as error:
        raise CheckpointError(f"{path} cannot be read: {_reason(error)}") from error
    return cast("dict[str, Any]", content)


class _Writer(dcp.FileSystemWriter):
    """Gives the folder its name when all processes have written their shares."""

    def __init__(self, path: Path, partial: Path, rest: dict[str, Any]) -> None:
        super().__init__(partial)
        self.whole, self.partial, self.rest = path, partial, rest

    def storage_meta(self) -> None:
        """Keeps the folder's place on this machine out of the table."""

    def finish(self, metadata: Metadata, results: Any) -> None:
        """Called on the first process; torch tells the others an error."""
        super().finish(metadata, results)
        table = zlib.crc32((self.partial / _TABLE).read_bytes())
        with open(self.partial / _REST, "wb") as file:  # a file, not a name: torch passes the error on
            torch.save({**self.rest, "table": table}, file)
        if self.whole.exists():
            move_away(self.whole)
        with replacing(self.whole) as partial:
            os.replace(self.partial, partial)


class _Reader(dcp.FileSystemReader):
    def read_metadata(self, *args: Any, **kwargs: Any) -> Metadata:
        """The table, without running code as torch's own reader would."""
        return _read_table(Path(self.path))


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> Any:
        is_dtype = module == "torch" and isinstance(getattr(torch, name, None), torch.dtype)
        if is_dtype or name in _OF_A_TABLE.get(module, ()):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} is no part of a table")


def _read_table(path: Path) -> Metadata:
    try:
        return cast(Metadata, _Unpickler(io.BytesIO((path / _TABLE).read_bytes())).load())
    except OSError:
        raise
    except Exception as error:
        raise CheckpointError(f"{path} is refused: its {_TABLE} is no table of tensors ({error})") from error


def _rest(path: Path) -> dict[str, Any]:
    archives.check_bytes(path / _REST)
    return archives.load(path / _REST, map_location="cpu")


def _check_parts(path: Path, parts: Iterable[Any]) -> None:
    for part in parts:
        file = path / part.relative_path
        with file.open("rb") as opened:
            opened.seek(part.offset)
            archives.check_bytes(file, io.BytesIO(opened.read(part.length)))


def _mapped(value: Any, change: Callable[[str, Tensor], Tensor], key: str = "") -> Any:
    """`value` with `change(key, tensor)` in place of each tensor; `optimizer_states/0/state/3/exp_avg` is a key."""
    if isinstance(value, Tensor):
        return change(key.removeprefix("/"), value)
    if isinstance(value, dict):
        return {name: _mapped(item, change, f"{key}/{name}") for name, item in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_mapped(item, change, f"{key}/{number}") for number, item in enumerate(value))
    return value


def _reason(error: BaseException) -> str:
    """What went wrong, in the words of the system where it was the system's error."""
    failures = error.failures.values() if isinstance(error, dcp.CheckpointException) else [(error, None)]
    first = next(iter(failures))[0]
    of_the_system = archives.os_error_behind(first)
    return str(first) if of_the_system is None else str(of_the_system.strerror)
