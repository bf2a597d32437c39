"""Threshold-free cluster enhancement of a map, by the rule of SDM-PSI.

The score of a voxel is the sum over the heights h = i dh, i = 1..99, below it of
extent(h)^E h^H, where extent(h) is the number of voxels above h that are face-connected to it
and dh is a hundredth of the maximum of that map and side.
"""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gpu_sdm.ops._op import Op
from gpu_sdm.spaces import SHAPES, Space

EXTENT_POWER = 0.5
HEIGHT_POWER = 2.0
STEPS = 100  # dh is the maximum over STEPS; the top step, where nothing is above, is not taken

# Sum of i^H over i <= n: what a cluster that keeps its extent gains from step n down to 1, in dh^H.
STEP_SUM = np.cumsum(np.arange(STEPS, dtype=np.float64) ** HEIGHT_POWER)
STEP_SUM.flags.writeable = False

VANISHING = 1e-200  # below, h^H underflows and every score is 0


def tfce(z: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    """Enhance the positive side of a map by the extent of its clusters at every height.

    Parameters
    ----------
    z : (V,) float
        Statistic map. Pass -z for the negative side.
    neighbours : (V, 6) int32
        Mask positions of the face neighbours -x -y -z +x +y +z; -1 where there is none.

    Returns
    -------
    (V,) float64
        Scores; 0 everywhere if the maximum is not positive or infinite, NaN everywhere if the map
        holds NaN.

    Notes
    -----
    As in SDM-PSI (and FSL) the sum is not multiplied by dh, and "above" is strict. SDM-PSI
    accumulates h in single precision, which makes its hundredth step chance; here it is never
    taken. This twin labels the clusters anew at every height, on the sub-graph that is left.

    References
    ----------
    .. [1] Smith & Nichols (2009) Threshold-free cluster enhancement. NeuroImage 44:83-98.
    """
    z = np.asarray(z, np.float64)
    score = np.zeros(len(z))
    top = z.max()
    if np.isnan(top):
        return np.full(len(z), np.nan)
    if not top > 0 or np.isinf(top):
        return score
    dh = top / STEPS
    first, face = np.nonzero(neighbours[:, 3:] >= 0)
    second = neighbours[first, face + 3]
    for i in range(1, STEPS):
        h = i * dh
        above = np.flatnonzero(z > h)
        linked = (z[first] > h) & (z[second] > h)
        first, second = first[linked], second[linked]
        place = np.zeros(len(z), np.intp)
        place[above] = np.arange(len(above))
        n = len(above)
        graph = coo_array((np.ones(len(first), bool), (place[first], place[second])), shape=(n, n))
        _, cluster = connected_components(graph, directed=False)
        extent = np.bincount(cluster)[cluster]
        score[above] += extent**EXTENT_POWER * h**HEIGHT_POWER
    return score


@nb.njit(cache=True, nogil=True)
def fill_levels(z, sign, dh, level):  # type: ignore[no-untyped-def]
    """Write to `level` how many of the heights 1 dh .. 99 dh lie strictly below each voxel."""
    per = 1.0 / dh
    for v in range(len(z)):
        value = sign * np.float64(z[v])
        i = min(int(max(value * per, 0.0)), STEPS - 1)
        # The product may round across a height; the comparison with i * dh is what counts.
        i += (value > (i + 1) * dh) & (i < STEPS - 1)
        i -= (not value > i * dh) & (i > 0)
        level[v] = i


@nb.njit(cache=True, nogil=True)
def order_by_level(level, start, order):  # type: ignore[no-untyped-def]
    """Put the voxels of level i >= 1 in scan order at `order[start[i]:start[i + 1]]`."""
    start[:] = 0
    for v in range(len(level)):
        start[level[v] + 1] += 1
    start[1] = 0  # level 0 is above no height and is left out
    for i in range(1, len(start)):
        start[i] += start[i - 1]
    fill = start.copy()
    for v in range(len(level)):
        i = level[v]
        if i > 0:
            order[fill[i]] = v
            fill[i] += 1


@nb.njit(cache=True, nogil=True)
def find_root(parent, v):  # type: ignore[no-untyped-def]
    """Root of a voxel's cluster, halving the path on the way."""
    while parent[v] != v:
        parent[v] = parent[parent[v]]
        v = parent[v]
    return v


@nb.njit(cache=True, nogil=True)
def _compiled_map(z, neighbours, step_sum):  # type: ignore[no-untyped-def]
    n = len(z)
    score = np.zeros(n)
    top = -np.inf
    for v in range(n):
        if np.isnan(z[v]):
            score[:] = np.nan
            return score
        top = max(top, np.float64(z[v]))
    if not top > VANISHING or np.isinf(top):
        return score
    dh = top / STEPS
    level = np.empty(n, np.uint8)
    start = np.empty(STEPS + 1, np.int32)
    order = np.empty(n, np.int32)
    fill_levels(z, 1.0, dh, level)
    order_by_level(level, start, order)

    # Union-find without path compression: score[v] holds what v misses against its root, and
    # a root holds what every voxel of its cluster has gained since it became a root.
    parent = np.empty(n, np.int32)
    size = np.empty(n, np.int32)
    done = np.empty(n, np.int32)  # heights down to this one are in the root's score
    for i in range(STEPS - 1, 0, -1):
        for j in range(start[i], start[i + 1]):
            v = order[j]
            parent[v], size[v], done[v] = v, 1, i + 1
            for d in range(6):
                u = neighbours[v, d]
                # An equal level was taken before v only if it lies before v in scan order.
                if u < 0 or level[u] < i or (level[u] == i and u > v):
                    continue
                a = u
                while parent[a] != a:
                    a = parent[a]
                b = v
                while parent[b] != b:
                    b = parent[b]
                if a == b:
                    continue
                for r in (a, b):
                    if done[r] > i + 1:
                        gain = step_sum[done[r] - 1] - step_sum[i]
                        score[r] += size[r] ** EXTENT_POWER * gain
                        done[r] = i + 1
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                score[b] -= score[a]
    for j in range(start[STEPS]):
        v = order[j]
        if parent[v] == v:
            score[v] += size[v] ** EXTENT_POWER * step_sum[done[v] - 1]
            done[v] = -1
    total = np.zeros(n)
    for j in range(start[STEPS]):
        v = order[j]
        value = score[v]
        a = v
        while parent[a] != a:
            a = parent[a]
            value += score[a]
        total[v] = value * dh**HEIGHT_POWER
    return total


def _cpu(z: np.ndarray, neighbours: np.ndarray) -> np.ndarray:
    score: np.ndarray = _compiled_map(
        np.ascontiguousarray(z), np.ascontiguousarray(neighbours), STEP_SUM
    )
    return score


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """White noise in a ragged block of the 4 mm grid."""
    mask = np.zeros(SHAPES[4], bool)
    mask[10:22, 12:25, 8:20] = rng.random((12, 13, 12)) < 0.9
    space = Space(4, mask)
    return (rng.standard_normal(space.n_voxels).astype(np.float32), space.neighbours()), {}


TFCE = Op("tfce", numpy=tfce, cpu=_cpu, sample=sample, rtol=1e-9)
