"""The largest TFCE score of a map, and the largest value: all a permutation needs of it."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np

from gpu_sdm.ops._op import Op
from gpu_sdm.ops.tfce import (
    EXTENT_POWER,
    HEIGHT_POWER,
    STEP_SUM,
    STEPS,
    VANISHING,
    fill_levels,
    find_root,
    order_by_level,
    tfce,
)
from gpu_sdm.ops.tfce import sample as sample_map


def max_tfce(z: np.ndarray, neighbours: np.ndarray, sign: float = 1.0) -> np.ndarray:
    """Largest TFCE score of each map.

    Parameters
    ----------
    z : (P, V) float
        Statistic maps.
    neighbours : (V, 6) int32
        Mask positions of the face neighbours -x -y -z +x +y +z; -1 where there is none.
    sign : {1, -1}
        The side: -1 scores -z.

    Returns
    -------
    (P,) float64
        0 where no voxel of that side is positive; NaN where the map holds NaN.

    Notes
    -----
    The compiled version sweeps the heights downward and joins voxels to clusters (union-find).
    A cluster keeps only the largest score among its voxels: what is added later is common to
    them all, so where two clusters meet the larger score is the one that can still win. While a
    cluster does not change its gains are owed, and paid at once from a table of sums.
    """
    return np.array([tfce(sign * row, neighbours).max() for row in z], np.float64)


@nb.njit(cache=True, nogil=True)
def _max_of_map(z, neighbours, sign, step_sum, level, start, order, parent, size, done, score):  # type: ignore[no-untyped-def]
    top = -np.inf
    for v in range(len(z)):
        value = sign * np.float64(z[v])
        if np.isnan(value):
            return np.nan
        top = max(top, value)
    if not top > VANISHING or np.isinf(top):
        return 0.0
    dh = top / STEPS
    fill_levels(z, sign, dh, level)
    order_by_level(level, start, order)
    for i in range(STEPS - 1, 0, -1):
        for j in range(start[i], start[i + 1]):
            v = order[j]
            a = -1  # root of the cluster v belongs to by now
            for d in range(6):
                u = neighbours[v, d]
                # Of an equal level only the three scan-order predecessors were taken before v.
                if u < 0 or level[u] < i or (d > 2 and level[u] == i):
                    continue
                b = find_root(parent, u)
                if a == b:
                    continue
                if done[b] > i + 1:
                    gain = step_sum[done[b] - 1] - step_sum[i]
                    score[b] += size[b] ** EXTENT_POWER * gain
                    done[b] = i + 1
                if a < 0:
                    a = b
                    parent[v] = a
                    size[a] += 1
                    continue
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                score[a] = max(score[a], score[b])
            if a < 0:
                parent[v] = v
                size[v] = 1
                done[v] = i + 1
                score[v] = 0.0
    best = 0.0
    for j in range(start[STEPS]):
        v = order[j]
        if parent[v] == v:
            best = max(best, score[v] + size[v] ** EXTENT_POWER * step_sum[done[v] - 1])
    return best * dh**HEIGHT_POWER


@nb.njit(cache=True, nogil=True)
def _compiled(z, neighbours, sign, step_sum):  # type: ignore[no-untyped-def]
    n_maps, n = z.shape
    level = np.empty(n, np.uint8)
    start = np.empty(STEPS + 1, np.int32)
    order = np.empty(n, np.int32)
    parent = np.empty(n, np.int32)
    size = np.empty(n, np.int32)
    done = np.empty(n, np.int32)
    score = np.empty(n, np.float64)
    best = np.empty(n_maps)
    for p in range(n_maps):
        best[p] = _max_of_map(
            z[p], neighbours, sign, step_sum, level, start, order, parent, size, done, score
        )
    return best


def _cpu(z: np.ndarray, neighbours: np.ndarray, sign: float = 1.0) -> np.ndarray:
    return _compiled(
        np.ascontiguousarray(z), np.ascontiguousarray(neighbours), float(sign), STEP_SUM
    )


def max_statistic(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Largest value of each map on either side.

    Parameters
    ----------
    z : (P, V) float
        Statistic maps.

    Returns
    -------
    max_z, max_neg_z : (P,) of the dtype of `z`
        Largest z and largest -z; NaN where the map holds NaN.
    """
    return z.max(axis=1), -z.min(axis=1)


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three maps of white noise in a ragged block of the 4 mm grid."""
    (z, neighbours), _ = sample_map(rng)
    return (np.stack([z, -z, rng.permutation(z)]), neighbours), {}


MAX_TFCE = Op("max_tfce", numpy=max_tfce, cpu=_cpu, sample=sample, rtol=1e-9)
