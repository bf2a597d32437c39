"""NIfTI files from anywhere: the header is believed only after checks, the data read after that.

nibabel parses the header; the bytes are read here, so that a damaged or hostile file can neither
warn, nor unpack more than its header announces, nor claim more memory than a map can need.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from gpu_sdm.errors import InputError
from gpu_sdm.io._text import unreadable

MOST_VOXELS = 2**26  # 0.5 mm over the whole head; 256 MiB as float32
LARGEST_OFFSET = 2**24  # bytes of header and extensions before the data
SMALLEST_MM, LARGEST_MM = 1e-3, 1e3  # voxel edges
OVERFLOWS = 1e100  # squares are still finite below
FARTHEST_MM = 1e5  # of the first voxel
SKEWED = 1e6  # condition number of an affine that places voxels nowhere
GZIP = b"\x1f\x8b"
PIECE = 2**20  # bytes read at once
SIZES = {1: 348, 2: 540}  # bytes of the header by version


@dataclass(frozen=True, slots=True, eq=False)
class Header:
    """What a checked header says."""

    shape: tuple[int, int, int]
    affine: np.ndarray  # (4, 4) float64 voxel to millimetres
    dtype: np.dtype[Any]
    offset: int  # bytes before the data
    slope: float
    intercept: float
    maps: int = 1  # along the fourth axis
    note: str = ""  # the description


@contextmanager
def _opened(path: Path) -> Iterator[IO[bytes]]:
    """Give the plain bytes of a file, unpacked if they are compressed (whatever its name says)."""
    if not path.is_file():  # a named pipe would wait forever
        what = "is not a file" if path.exists() else "there is no such file"
        raise InputError(f"{what}; give a .nii or .nii.gz image.", path)
    try:
        with path.open("rb") as file:
            packed = file.read(2) == GZIP
            file.seek(0)
            if packed:
                with gzip.GzipFile(fileobj=file) as plain:
                    yield plain  # type: ignore[misc]
            else:
                yield file
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise InputError(
            f"cannot be unpacked ({error}); it is damaged or cut short: copy it again.", path
        ) from error
    except OSError as error:
        raise unreadable(error, path) from error


def sha256(path: Path) -> str:
    """Content hash of a file, read in pieces.

    Raises
    ------
    InputError
        If it cannot be read.
    """
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise unreadable(error, path) from error


def read_header(path: Path, stack: bool = False) -> Header:
    """Read and check the header of a map.

    Parameters
    ----------
    path : path
        The file, compressed or not.
    stack : bool
        Take several maps along the fourth axis too.

    Raises
    ------
    InputError
        If the file is no NIfTI image of real numbers, of one map where no stack is wanted, with a
        sensible size and a place in space.
    """
    with _opened(path) as file:
        raw = file.read(max(SIZES.values()))
    version = _version(raw)
    if version is None:
        raise InputError("is not a NIfTI image; give a .nii or .nii.gz file.", path)
    header = _parsed(raw[: SIZES[version]], version, path)
    shape, maps = _shape(np.asarray(header["dim"]).astype(object), path, stack)
    try:
        dtype = header.get_data_dtype()
    except Exception as error:  # nibabel has an error of its own for every header field
        code = int(header["datatype"])
        raise InputError(f"has the data type {code}, which NIfTI does not know.", path) from error
    if dtype.kind not in "iuf" or dtype.itemsize > 8:
        raise InputError(f"holds {dtype.name} values; a map holds plain real numbers.", path)
    offset = float(header["vox_offset"])
    if not SIZES[version] <= offset <= LARGEST_OFFSET:
        raise InputError(
            f"says that its data begin at byte {offset:g}; its header is damaged.", path
        )
    slope, intercept = _scaling(header, path)
    note = header["descrip"].item().decode("latin-1")
    affine = _affine(header, path)
    return Header(shape, affine, dtype, int(offset), slope, intercept, maps, note)


def _version(raw: bytes) -> int | None:
    """1 or 2 for a single-file NIfTI of that version."""
    if len(raw) >= SIZES[1] and raw[344:348] == b"n+1\0":
        return 1
    if len(raw) >= SIZES[2] and raw[4:8] == b"n+2\0":
        return 2
    return None


def _parsed(raw: bytes, version: int, path: Path) -> Any:
    import nibabel

    kind = nibabel.Nifti1Header if version == 1 else nibabel.Nifti2Header
    try:
        return kind(raw, check=False)
    except Exception as error:
        raise InputError("has a damaged NIfTI header; export it again.", path) from error


def _shape(dim: np.ndarray, path: Path, stack: bool) -> tuple[tuple[int, int, int], int]:
    """Size of a map and number of maps."""
    axes = int(dim[0])
    if not 1 <= axes <= 7:
        raise InputError(f"claims {axes} axes; its header is damaged.", path)
    sizes = tuple(int(n) for n in dim[1 : axes + 1])
    if min(sizes) < 1:
        raise InputError(f"has the size {sizes}, so it holds no voxel; export it again.", path)
    if axes < 3:
        raise InputError(f"has the size {sizes}; a map has three axes.", path)
    maps = int(np.prod(np.array(sizes[3:], object)))
    if maps != 1 and (not stack or maps != sizes[3]):
        raise InputError(
            f"has the size {sizes}: {maps} volumes; a study has one map, so save that volume as a "
            "3-D image.",
            path,
        )
    voxels = int(np.prod(np.array(sizes[:3], object)))
    if voxels > MOST_VOXELS:
        raise InputError(
            f"claims {sizes[:3]} voxels, more than the {MOST_VOXELS:,} of a head at 0.5 mm; its "
            "header is damaged, or resample it.",
            path,
        )
    return (sizes[0], sizes[1], sizes[2]), maps


def _scaling(header: Any, path: Path) -> tuple[float, float]:
    slope, intercept = float(header["scl_slope"]), float(header["scl_inter"])
    if slope == 0 or np.isnan(slope):  # NIfTI: not scaled
        return 1.0, 0.0
    intercept = 0.0 if np.isnan(intercept) else intercept
    if not (np.isfinite(slope) and np.isfinite(intercept)):
        raise InputError(
            f"scales its values by {slope:g} and {intercept:g}; its header is damaged.", path
        )
    return slope, intercept


def _affine(header: Any, path: Path) -> np.ndarray:
    if int(header["sform_code"]) <= 0 and int(header["qform_code"]) <= 0:
        raise InputError(
            "does not say where its voxels lie (sform and qform codes are 0); export it with its "
            "affine in MNI space.",
            path,
        )
    try:
        with np.errstate(all="ignore"):
            affine = np.asarray(header.get_best_affine(), np.float64)
    except Exception as error:
        raise InputError("has a damaged orientation (qform); export it again.", path) from error
    with np.errstate(all="ignore"):
        affine = np.where(np.abs(affine) < OVERFLOWS, affine, np.nan)
        placed = np.isfinite(affine).all() and np.linalg.cond(affine[:3, :3]) < SKEWED
    if not placed:
        raise InputError(
            "has an affine that is not a number or cannot be inverted: its voxels have no place; "
            "export it again.",
            path,
        )
    edges, origin = np.sqrt((affine[:3, :3] ** 2).sum(axis=0)), np.abs(affine[:3, 3]).max()
    if edges.min() < SMALLEST_MM or edges.max() > LARGEST_MM or origin > FARTHEST_MM:
        size = " x ".join(f"{edge:.3g}" for edge in edges)
        raise InputError(
            f"has voxels of {size} mm, the first up to {origin:.3g} mm from the origin; its header "
            "is damaged.",
            path,
        )
    return affine


def read_data(path: Path, header: Header) -> np.ndarray:
    """Read the values of a map: (X, Y, Z) float32, scaled as its header says.

    Raises
    ------
    InputError
        If there are fewer bytes than the header announces, or what was compressed is damaged.
    """
    (values,) = read_maps(path, header)
    return values


def read_maps(path: Path, header: Header, dtype: type = np.float32) -> Iterator[np.ndarray]:
    """Read the maps of a stack one after the other: (X, Y, Z) of `dtype` each; as `read_data`."""
    wanted = int(np.prod(header.shape)) * header.dtype.itemsize
    with _opened(path) as file:
        found = len(file.read(header.offset))
        for i in range(header.maps):
            # In pieces: a read of its full length would claim the memory before any byte is there.
            raw = bytearray()
            while piece := file.read(min(PIECE, wanted - len(raw))):
                raw += piece
            if i == header.maps - 1:
                _compare_checksum(file)
            if found < header.offset or len(raw) < wanted:
                held = i * wanted + len(raw)
                raise InputError(
                    f"holds {held:,} bytes of data where its header announces "
                    f"{header.maps * wanted:,}; it is cut short: copy it again.",
                    path,
                )
            yield _scaled(raw, header, dtype)


def _compare_checksum(file: IO[bytes]) -> None:
    """Read beyond the data: at the end of what was compressed its checksum is compared."""
    try:
        file.read(1)
    except gzip.BadGzipFile as error:
        # AES-SDM's files go on with bytes that are no gzip: not the map's, and so no harm.
        if not str(error).startswith("Not a gzipped file"):
            raise


def _scaled(raw: bytearray, header: Header, dtype: type) -> np.ndarray:
    data = np.frombuffer(raw, header.dtype).reshape(header.shape, order="F")
    with np.errstate(over="ignore", invalid="ignore"):
        values: np.ndarray = data.astype(dtype)
        if (header.slope, header.intercept) != (1.0, 0.0):
            values *= dtype(header.slope)
            values += dtype(header.intercept)
    return values
