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
    The compiled version floods the map from its peaks, as a landscape from which the water sinks
    [1]_: the clusters of one tree of heights lie on a stack, and every voxel is looked at once.
    A cluster keeps only the largest score among its voxels: what is added later is common to
    them all, so where two clusters meet the larger score is the one that can still win. While a
    cluster does not change its gains are owed, and paid at once from a table of sums.

    References
    ----------
    .. [1] Nister D, Stewenius H (2008) Linear time maximally stable extremal regions. ECCV.
    """
    return np.array([tfce(sign * row, neighbours).max() for row in z], np.float64)


@nb.njit(cache=True, nogil=True)
def _fill_buckets(level, first, end, four):  # type: ignore[no-untyped-def]
    """Give each level i >= 1 its own part of an array of voxels, from first[i] and still empty."""
    n = len(level)
    four[:] = 0  # four counts of every fourth voxel: neighbours are alike and would wait in turn
    for v in range(0, n - 3, 4):
        four[0, level[v]] += 1
        four[1, level[v + 1]] += 1
        four[2, level[v + 2]] += 1
        four[3, level[v + 3]] += 1
    for v in range(n - n % 4, n):
        four[0, level[v]] += 1
    total = 0
    first[0] = end[0] = 0
    for i in range(1, STEPS):
        first[i] = end[i] = total
        total += four[0, i] + four[1, i] + four[2, i] + four[3, i]


@nb.njit(cache=True, nogil=True)
def _sink(top, down, height, size, score, step_sum):  # type: ignore[no-untyped-def]
    """Bring the highest cluster of the stack down to level `down`; its place on the stack then."""
    while True:
        below = height[top - 1] if top > 0 else -1
        gain = step_sum[height[top]] - step_sum[max(below, down)]
        score[top] += size[top] ** EXTENT_POWER * gain
        if below < down:
            height[top] = down
            return top
        top -= 1
        size[top] += size[top + 1]
        score[top] = max(score[top], score[top + 1])
        if below == down:
            return top


@nb.njit(cache=True, nogil=True)
def _best_of_tree(seed, neighbours, level, first, end, bucket, height, size, score, step_sum):  # type: ignore[no-untyped-def]
    """Largest score in the cluster of `seed` above the lowest height; its voxels get level 0."""
    v, d, here, top = seed, 0, np.intp(level[seed]), 0
    level[v] = 0  # seen
    height[0], size[0], score[0] = here, 0, 0.0
    while True:
        while d < 6:
            u = neighbours[v, d]  # of -1 the level is 0
            there = np.intp(level[u])
            d += 1
            if there == 0:
                continue
            level[u] = 0
            if there <= here:
                bucket[end[there]] = 8 * u
                end[there] += 1
                continue
            bucket[end[here]] = 8 * v + d  # to go on with its neighbour d later
            end[here] += 1
            v, d, here = u, 0, there
            top += 1
            height[top], size[top], score[top] = here, 0, 0.0
        size[top] += 1
        down = here
        while down > 0 and end[down] == first[down]:
            down -= 1
        if down < here:
            top = _sink(top, down, height, size, score, step_sum)
            if down == 0:
                return score[0]
            here = down
        end[here] -= 1
        v, d = bucket[end[here]] >> 3, bucket[end[here]] & 7


@nb.njit(cache=True, nogil=True)
def _compiled(z, neighbours, sign, step_sum):  # type: ignore[no-untyped-def]
    n_maps, n = z.shape
    level = np.zeros(n + 1, np.uint8)  # the last one is that of neighbour -1
    first, end = np.empty(STEPS, np.int64), np.empty(STEPS, np.int64)
    four = np.empty((4, STEPS), np.int64)
    bucket = np.empty(n, np.int64)
    height, size, score = np.empty(STEPS, np.int64), np.empty(STEPS, np.int64), np.empty(STEPS)
    best = np.zeros(n_maps)
    for p in range(n_maps):
        top = -np.inf
        for v in range(n):
            value = sign * np.float64(z[p, v])
            if np.isnan(value):
                top = np.nan
                break
            top = max(top, value)
        if np.isnan(top):
            best[p] = np.nan
        if not top > VANISHING or np.isinf(top):
            continue
        dh = top / STEPS
        fill_levels(z[p], sign, dh, level)
        _fill_buckets(level[:n], first, end, four)
        for v in range(n):
            if level[v] > 0:
                tree = _best_of_tree(
                    v, neighbours, level, first, end, bucket, height, size, score, step_sum
                )
                best[p] = max(best[p], tree)
        best[p] *= dh**HEIGHT_POWER
    return best


def _cpu(z: np.ndarray, neighbours: np.ndarray, sign: float = 1.0) -> np.ndarray:
    best: np.ndarray = _compiled(
        np.ascontiguousarray(z), np.ascontiguousarray(neighbours), float(sign), STEP_SUM
    )
    return best


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
