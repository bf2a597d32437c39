"""The largest cluster of a map above a forming threshold, by extent and by mass."""

from __future__ import annotations

from typing import Any

import numba as nb
import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from gpu_sdm.ops._op import Op
from gpu_sdm.ops.tfce import find_root
from gpu_sdm.ops.tfce import sample as sample_map
from gpu_sdm.spaces import Space

HIGHEST = 65536.0  # z above counts as this in the mass, so that the kernel can sum integers


def box_neighbours(space: Space) -> np.ndarray:
    """List the neighbours of each voxel by faces, edges and corners.

    Parameters
    ----------
    space : Space
        Grid and mask.

    Returns
    -------
    (V, 26) int32
        Mask positions, -1 where there is none; the first 13 come before the voxel in scan order.
    """
    padded = np.full(tuple(s + 2 for s in space.shape), -1, np.int32, order="F")
    i, j, k = (space.ijk() + 1).T
    padded[i, j, k] = np.arange(space.n_voxels, dtype=np.int32)
    steps = np.indices((3, 3, 3)).reshape(3, -1).T[:, ::-1] - 1  # x fastest: scan order
    steps = steps[steps.any(axis=1)]
    return np.stack([padded[i + a, j + b, k + c] for a, b, c in steps], axis=1)


def max_cluster(
    z: np.ndarray, neighbours: np.ndarray, threshold: float, sign: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    """Largest extent and largest mass of the clusters of each map.

    Parameters
    ----------
    z : (P, V) float
        Statistic maps.
    neighbours : (V, 6) or (V, 26) int32
        Mask positions of the neighbours, -1 where there is none; the first half of a row comes
        before the voxel in scan order, as `Space.neighbours` and `box_neighbours` give them.
    threshold : float
        Forming threshold, at least 0, rounded to single precision; voxels strictly above form
        clusters.
    sign : {1, -1}
        The side: -1 takes -z.

    Returns
    -------
    extent : (P,) float64
        Voxels of the largest cluster; 0 where no voxel is above; NaN where the map holds NaN.
    mass : (P,) float64
        Largest sum of z - threshold over a cluster, not necessarily the same one.

    References
    ----------
    .. [1] Bullmore et al. (1999) Global, voxel, and cluster tests, by theory and permutation.
       IEEE Trans Med Imaging 18:32-42.
    """
    extent, mass = np.zeros(len(z)), np.zeros(len(z))
    for p, row in enumerate(z):
        value = sign * np.asarray(row, np.float64)
        if np.isnan(value).any():
            extent[p] = mass[p] = np.nan
            continue
        extents, masses, _ = cluster_maps(value, neighbours, threshold)
        extent[p], mass[p] = extents.max(), masses.max()
    return extent, mass


def cluster_maps(
    z: np.ndarray, neighbours: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Extent and mass of the cluster that each voxel of a map belongs to.

    Parameters
    ----------
    z : (V,) float
        Statistic map without NaN. Pass -z for the negative side.
    neighbours, threshold
        As for `max_cluster`.

    Returns
    -------
    extent, mass : (V,) float64
        0 where a voxel is not above the threshold.
    cluster : (V,) int
        Number of the cluster; voxels that are not above have a number of their own.
    """
    half = neighbours.shape[1] // 2
    level = float(np.float32(threshold))
    value = np.asarray(z, np.float64)
    above = value > level
    first, column = np.nonzero((neighbours[:, :half] >= 0) & above[:, None])
    second = neighbours[first, column]
    linked = above[second]
    ends = (first[linked], second[linked])
    graph = coo_array((np.ones(len(ends[0]), bool), ends), shape=(len(value), len(value)))
    _, cluster = connected_components(graph, directed=False)
    over = np.where(above, np.minimum(value, HIGHEST) - level, 0)
    extent = np.bincount(cluster, weights=above)
    mass = np.bincount(cluster, weights=over)
    return extent[cluster], mass[cluster], cluster


@nb.njit(cache=True, nogil=True)
def _compiled(z, neighbours, level, sign):  # type: ignore[no-untyped-def]
    n_maps, n = z.shape
    half = neighbours.shape[1] // 2
    parent = np.empty(n, np.int32)
    size = np.empty(n, np.int32)
    weight = np.empty(n)
    extent, mass = np.zeros(n_maps), np.zeros(n_maps)
    for p in range(n_maps):
        for v in range(n):
            value = sign * np.float64(z[p, v])
            if np.isnan(value):
                extent[p] = mass[p] = np.nan
                break
            parent[v] = -1
            if not value > level:
                continue
            parent[v], size[v], weight[v] = v, 1, min(value, HIGHEST) - level
            for d in range(half):
                u = neighbours[v, d]
                if u < 0 or parent[u] < 0:
                    continue
                a, b = find_root(parent, u), find_root(parent, v)
                if a == b:
                    continue
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                weight[a] += weight[b]
        if np.isnan(extent[p]):
            continue
        for v in range(n):
            if parent[v] == v:
                extent[p] = max(extent[p], size[v])
                mass[p] = max(mass[p], weight[v])
    return extent, mass


def _cpu(
    z: np.ndarray, neighbours: np.ndarray, threshold: float, sign: float = 1.0
) -> tuple[np.ndarray, np.ndarray]:
    extent, mass = _compiled(
        np.ascontiguousarray(z),
        np.ascontiguousarray(neighbours),
        float(np.float32(threshold)),
        float(sign),
    )
    return extent, mass


def sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Three maps of white noise in a ragged block of the 4 mm grid."""
    (z, neighbours), _ = sample_map(rng)
    return (np.stack([z, -z, rng.permutation(z)]), neighbours, 0.6), {}


MAX_CLUSTER = Op("max_cluster", numpy=max_cluster, cpu=_cpu, sample=sample, rtol=1e-9)
