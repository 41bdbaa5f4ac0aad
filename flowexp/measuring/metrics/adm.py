"""The .npz files of ADM's evaluator (Dhariwal and Nichol, 2021): samples and reference batches, read and written.

`arr_0`: uint8 (N, H, W, 3). `mu`, `sigma`, `mu_s`, `sigma_s`: moments of pool-3 and of spatial features over the whole
dataset, of which arr_0 is a part; a batch of samples has none.
"""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from torch import Tensor

from flowexp.measuring.metrics.moments import Moments
from flowexp.records.files import atomic
from flowexp.records.files.fingerprint import sha256_of

NAMES = {"features": ("mu", "sigma"), "spatial": ("mu_s", "sigma_s")}
DIMS = {"features": 2048, "spatial": 2023}


@dataclass(frozen=True)
class AdmBatch:
    """A checked file. Its images stay in it: `batches` reads them part by part.

    shape: (N, H, W, 3). fingerprint: 16 hexadecimal digits that identify the content, from the checksums in the file.
    moments: by output, of "features" and "spatial", with count 0, since the file has none; empty where they must be
    computed from the images, as ADM does.
    """

    path: Path
    shape: tuple[int, int, int, int]
    fingerprint: str
    moments: Mapping[str, Moments] = field(default_factory=dict)

    def batches(self, batch_size: int = 250) -> Iterator[Tensor]:
        """The pictures in order, uint8 (batch_size or fewer, 3, H, W).

        Raises:
            ValueError: the file is damaged behind its header.
        """
        with zipfile.ZipFile(self.path) as archive, archive.open("arr_0.npy") as file:
            _read_header(file)
            for start in range(0, self.shape[0], batch_size):
                shape = (min(batch_size, self.shape[0] - start), *self.shape[1:])
                yield torch.from_numpy(self._read(file, shape)).permute(0, 3, 1, 2)

    def _read(self, file: IO[bytes], shape: tuple[int, ...]) -> np.ndarray:
        try:
            return np.frombuffer(bytearray(file.read(int(np.prod(shape)))), dtype=np.uint8).reshape(shape)
        except (zipfile.BadZipFile, zlib.error, ValueError) as error:  # a checksum, or fewer bytes than announced
            raise ValueError(f"the pictures in {self.path} are damaged: fetch it again ({error})") from error


def write_adm_batch(path: Path, images: Tensor, moments: Mapping[str, Moments] | None = None) -> None:
    """Writes uint8 pictures (N, 1 or 3, H, W), grey ones repeated to colour, as ADM's evaluator reads them.

    moments: of "features" and "spatial", which make the file a reference batch.

    Raises:
        ValueError: another shape or dtype, a name that does not end in .npz, or moments of one output only.
    """
    write_adm_batches(path, [images], len(images), moments)


def write_adm_batches(
    path: Path, batches: Iterable[Tensor], num: int, moments: Mapping[str, Moments] | None = None
) -> None:
    """As `write_adm_batch`, for `num` pictures in batches (B, 1 or 3, H, W), of which one is in memory at a time.

    The file appears when it is whole.

    Raises:
        ValueError: as `write_adm_batch`, or batches of two shapes, or not `num` pictures.
    """
    if path.suffix != ".npz" or (moments and set(moments) != set(NAMES)):
        raise ValueError(
            f"{path.name} must end in .npz, and moments be of features and spatial, got {moments and [*moments]}"
        )
    with atomic.replacing(path) as partial, zipfile.ZipFile(partial, "w") as archive:
        with archive.open("arr_0.npy", "w", force_zip64=True) as member:
            _write_pixels(member, batches, num)
        for name, array in _arrays_of(moments or {}).items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, allow_pickle=False)


def _write_pixels(file: IO[bytes], batches: Iterable[Tensor], num: int) -> None:
    shape: tuple[int, ...] | None = None
    written = 0
    for batch in batches:
        pixels = _as_adm(batch)
        if shape is None:
            shape = pixels.shape[1:]
            header = {"descr": "|u1", "fortran_order": False, "shape": (num, *shape)}
            np.lib.format.write_array_header_1_0(file, header)
        if pixels.shape[1:] != shape:
            raise ValueError(f"all pictures of a batch of ADM have one shape, got {shape} and {pixels.shape[1:]}")
        file.write(pixels.data)
        written += len(pixels)
    if written != num or not num:
        raise ValueError(f"{num} pictures were announced for a batch of ADM, and at least one is needed; got {written}")


def _as_adm(images: Tensor) -> np.ndarray:
    if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(
            f"ADM's evaluator takes uint8 pictures (N, 1 or 3, H, W), got {images.dtype} {tuple(images.shape)}: "
            "convert samples to uint8 first"
        )
    return images.cpu().expand(-1, 3, -1, -1).permute(0, 2, 3, 1).contiguous().numpy()


def _arrays_of(moments: Mapping[str, Moments]) -> dict[str, np.ndarray]:
    arrays: dict[str, np.ndarray] = {}
    for output, found in moments.items():
        mean, covariance = NAMES[output]
        arrays |= {mean: found.mean.cpu().numpy(), covariance: found.covariance.cpu().numpy()}
    return arrays


def read_adm_reference(path: Path, resolution: int | None = None) -> AdmBatch:
    """A reference batch, or a batch of samples, of ADM.

    resolution: what the samples have, pixels per side; None compares nothing.

    Raises:
        ValueError: no such file, keys, shapes or dtypes that are not ADM's, or another resolution.
    """
    if not path.is_file():
        raise ValueError(f"there is no reference batch at {path}: fetch one of ADM's VIRTUAL_*.npz, or write one")
    try:
        with zipfile.ZipFile(path) as archive, archive.open("arr_0.npy") as file:
            shape, dtype = _read_header(file)
            fingerprint = _fingerprint(archive)
    except (zipfile.BadZipFile, KeyError, ValueError) as error:
        raise ValueError(f"{path} is no batch of ADM: it needs an array arr_0 in an .npz file ({error})") from error
    if dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or 0 in shape:
        raise ValueError(f"arr_0 of {path} must be uint8 (N, H, W, 3), got {dtype} {shape}")
    if resolution is not None and shape[1:3] != (resolution, resolution):
        raise ValueError(
            f"{path} has pictures of {shape[1]} x {shape[2]}, the samples have {resolution} x {resolution}: "
            "take the reference of the samples' resolution"
        )
    return AdmBatch(path, (shape[0], shape[1], shape[2], shape[3]), fingerprint, _read_moments(path))


def _fingerprint(archive: zipfile.ZipFile) -> str:
    """Of the arrays' names, sizes and checksums, which are of their content before any compression."""
    content = sorted((member.filename, member.file_size, member.CRC) for member in archive.infolist())
    return sha256_of(repr(content).encode())


def _read_header(file: IO[bytes]) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, by_columns, dtype = read(file)
    if by_columns:
        raise ValueError("arr_0 is stored by columns")
    return shape, dtype


def _read_moments(path: Path) -> dict[str, Moments]:
    wanted = {name for pair in NAMES.values() for name in pair}
    with np.load(path, allow_pickle=False) as arrays:
        present = wanted & set(arrays)
        if not present:
            return {}
        if present != wanted:
            raise ValueError(f"{path} has {', '.join(sorted(present))}: a reference batch has all of {sorted(wanted)}")
        try:
            found = {name: arrays[name] for name in wanted}
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError) as error:
            raise ValueError(f"the moments in {path} are damaged: fetch it again ({error})") from error
    return {output: _checked(path, output, found[m], found[s]) for output, (m, s) in NAMES.items()}


def _checked(path: Path, output: str, mean: np.ndarray, covariance: np.ndarray) -> Moments:
    dim, names = DIMS[output], " and ".join(NAMES[output])
    if mean.shape != (dim,) or covariance.shape != (dim, dim):
        raise ValueError(
            f"{names} of {path} must be ({dim},) and ({dim}, {dim}), got {mean.shape} and {covariance.shape}"
        )
    if mean.dtype.kind != "f" or covariance.dtype.kind != "f":
        raise ValueError(f"{names} of {path} must be floats, got {mean.dtype} and {covariance.dtype}")
    if not (np.isfinite(mean).all() and np.isfinite(covariance).all()):
        raise ValueError(f"{names} of {path} have entries that are NaN or infinite: fetch it again, or leave them out")
    return Moments(torch.from_numpy(mean).double(), torch.from_numpy(covariance).double(), 0)
