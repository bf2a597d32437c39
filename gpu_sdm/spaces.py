"""The analysis grid and its mask: millimetres to voxels, maps to vectors and back."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

import numpy as np

from gpu_sdm.errors import SettingError, SpaceError

# 2, 3 and 4 mm grids share the centre of the first voxel and the extent (180 x 216 x 180 mm).
ORIGIN_MM = (90.0, -126.0, -72.0)
SHAPES = {2: (91, 109, 91), 3: (61, 73, 61), 4: (46, 55, 46)}


def grid_affine(voxel_size: int) -> np.ndarray:
    """Affine of the analysis grid, x decreasing as in SDM-PSI's own maps."""
    affine = np.diag([-voxel_size, voxel_size, voxel_size, 1.0])
    affine[:3, 3] = ORIGIN_MM
    return affine


def transformed(affine: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (..., 3) under an affine (4, 4)."""
    there: np.ndarray = points @ affine[:3, :3].T + affine[:3, 3]
    return there


@dataclass(frozen=True, eq=False)
class Space:
    """A grid and the voxels of it that are analysed.

    Voxels are numbered in Fortran order (x fastest), the scan order of the subject images.

    Parameters
    ----------
    voxel_size : int
        2, 3 or 4 millimetres.
    mask : (X, Y, Z) bool
        The analysed voxels.
    """

    voxel_size: int
    mask: np.ndarray
    _index: np.ndarray = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if self.voxel_size not in SHAPES or self.mask.shape != SHAPES[self.voxel_size]:
            raise SpaceError(
                f"The mask has shape {self.mask.shape} at {self.voxel_size} mm; "
                f"known grids are {SHAPES}."
            )
        if not self.mask.any():
            raise SpaceError("The mask holds no voxel; give one with at least one non-zero voxel.")
        mask = np.asfortranarray(self.mask, dtype=bool)
        mask.flags.writeable = False
        object.__setattr__(self, "mask", mask)
        index = np.flatnonzero(mask.ravel(order="F")).astype(np.int32)
        index.flags.writeable = False
        object.__setattr__(self, "_index", index)

    @property
    def shape(self) -> tuple[int, int, int]:
        """Grid shape (X, Y, Z)."""
        return SHAPES[self.voxel_size]

    @property
    def affine(self) -> np.ndarray:
        """(4, 4) voxel to MNI millimetres."""
        return grid_affine(self.voxel_size)

    @property
    def index(self) -> np.ndarray:
        """(V,) int32 full-grid Fortran index of each analysed voxel, increasing."""
        return self._index

    @property
    def n_voxels(self) -> int:
        """V, the number of analysed voxels."""
        return len(self.index)

    def ijk(self) -> np.ndarray:
        """(V, 3) int voxel coordinates of the analysed voxels."""
        return np.stack(np.unravel_index(self.index, self.shape, order="F"), axis=1)

    def mm(self, voxels: np.ndarray | None = None) -> np.ndarray:
        """(n, 3) MNI millimetres of the given positions in the mask (all by default)."""
        ijk = self.ijk() if voxels is None else self.ijk()[voxels]
        return transformed(self.affine, ijk)

    def embed(self, values: np.ndarray, fill: float = 0.0) -> np.ndarray:
        """(V,) values to an (X, Y, Z) float32 volume with `fill` outside the mask."""
        volume = np.full(int(np.prod(self.shape)), fill, np.float32)
        volume[self.index] = values
        return volume.reshape(self.shape, order="F")

    def extract(self, volume: np.ndarray) -> np.ndarray:
        """(X, Y, Z) volume to the (V,) values in the mask."""
        values: np.ndarray = volume.ravel(order="F")[self.index]
        return values

    def neighbours(self) -> np.ndarray:
        """(V, 6) int32 mask positions of the face neighbours -x -y -z +x +y +z; -1 where none."""
        padded = np.full(tuple(s + 2 for s in self.shape), -1, np.int32, order="F")
        i, j, k = (self.ijk() + 1).T
        padded[i, j, k] = np.arange(self.n_voxels, dtype=np.int32)
        steps = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (1, 0, 0), (0, 1, 0), (0, 0, 1))
        return np.stack([padded[i + a, j + b, k + c] for a, b, c in steps], axis=1)

    def digest(self) -> str:
        """Content hash of grid and mask."""
        return hashlib.sha256(
            f"{self.voxel_size}".encode() + np.packbits(self.mask.ravel(order="F")).tobytes()
        ).hexdigest()


def voxel_at(space: Space, xyz_mm: tuple[float, float, float]) -> int:
    """Give the voxel of the mask (its position) in which a point lies, MNI millimetres.

    Raises
    ------
    SettingError
        If it is not in the mask; names the nearest voxel that is.
    """
    mm, wanted = space.mm(), np.asarray(xyz_mm, float)
    distance = np.linalg.norm(mm - wanted, axis=1)
    at = int(np.argmin(distance))
    # Half a voxel along each axis: farther, its own voxel is not analysed.
    if not np.abs(mm[at] - wanted).max() <= space.voxel_size / 2 + 1e-6:  # NaN is nowhere
        place, nearest = (",".join(f"{v:g}" for v in p) for p in (wanted, mm[at]))
        raise SettingError(
            f"({place}) lies outside the mask; the nearest analysed voxel is at ({nearest}), "
            f"{distance[at]:.1f} mm away."
        )
    return at
