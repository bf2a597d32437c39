"""How many studies have a peak near each voxel: the counts behind MKDA."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.ops._op import Op
from gpu_sdm.spaces import Space, transformed


def sphere(radius_mm: float, voxel_size: int) -> np.ndarray:
    """(m, 3) int32 steps to the voxels whose centres lie at most `radius_mm` away."""
    reach = int(radius_mm // voxel_size)
    steps = np.indices((2 * reach + 1,) * 3).reshape(3, -1).T - reach
    inside = np.linalg.norm(steps * float(voxel_size), axis=1) <= radius_mm
    return np.ascontiguousarray(steps[inside], np.int32)


def nearest_voxels(xyz_mm: np.ndarray, space: Space) -> np.ndarray:
    """(n, 3) int32 voxels nearest to millimetres (n, 3); half-way ones go to the even voxel."""
    ijk: np.ndarray = np.rint(transformed(np.linalg.inv(space.affine), xyz_mm)).astype(np.int32)
    return ijk


def study_counts(
    ijk: np.ndarray, start: np.ndarray, steps: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    """Count the studies with a peak near each voxel of a grid.

    Parameters
    ----------
    ijk : (n, 3) int32
        Voxels of the peaks, study by study; they may lie outside the grid.
    start : (K + 1,) int64
        Study k has the rows `start[k]` to `start[k + 1] - 1`.
    steps : (m, 3) int32
        From `sphere`.
    shape : (X, Y, Z)
        Of the grid.

    Returns
    -------
    (X, Y, Z) int32
        A study counts once at a voxel, however many of its peaks are near.
    """
    count = np.zeros(shape, np.int32)
    for k in range(len(start) - 1):
        near = (ijk[start[k] : start[k + 1], None] + steps).reshape(-1, 3)
        near = near[((near >= 0) & (near < shape)).all(axis=1)]
        count.ravel()[np.unique(np.ravel_multi_index(tuple(near.T), shape))] += 1
    return count


@nb.njit(cache=True, nogil=True)
def _compiled(ijk, start, steps, count):  # type: ignore[no-untyped-def]
    last = np.full(count.shape, -1, np.int32)
    nx, ny, nz = count.shape
    for k in range(len(start) - 1):
        for i in range(start[k], start[k + 1]):
            for s in range(len(steps)):
                x = ijk[i, 0] + steps[s, 0]
                y = ijk[i, 1] + steps[s, 1]
                z = ijk[i, 2] + steps[s, 2]
                inside = 0 <= x < nx and 0 <= y < ny and 0 <= z < nz
                if inside and last[x, y, z] != k:
                    last[x, y, z] = k
                    count[x, y, z] += 1


def _cpu(
    ijk: np.ndarray, start: np.ndarray, steps: np.ndarray, shape: tuple[int, int, int]
) -> np.ndarray:
    count = np.zeros(shape, np.int32)
    _compiled(
        np.ascontiguousarray(ijk, np.int32),
        np.ascontiguousarray(start, np.int64),
        np.ascontiguousarray(steps, np.int32),
        count,
    )
    return count


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Peaks of 30 studies in and around a small grid; one study has none."""
    count = rng.integers(1, 12, 30)
    count[4] = 0
    start = np.concatenate([[0], np.cumsum(count)])
    ijk = rng.integers(-3, 15, (start[-1], 3)).astype(np.int32)
    return (ijk, start, sphere(10, 4), (12, 11, 10)), {}


STUDY_COUNTS = Op("study_counts", numpy=study_counts, cpu=_cpu, sample=sample, rtol=0.0)
