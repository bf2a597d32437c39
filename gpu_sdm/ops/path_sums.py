"""What hangs on the links of shortest paths: values at their ends, summed back to the start."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit

from gpu_sdm.ops import virtual_distance as distance
from gpu_sdm.ops._graph import Graph
from gpu_sdm.ops._op import Op

# A voxel that no neighbour leads to within this many mm is where a path starts.
ROOT_MM = 1e-6


def _numpy(
    graph: Graph, voxels: np.ndarray, distance_mm: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Sum values over all paths that lead over a link.

    Parameters
    ----------
    graph : Graph
        The template.
    voxels : (R,) int64
        Voxels in reach of a peak, increasing, as `virtual_distance` gives them.
    distance_mm : (R,) float64
        Virtual mm to each.
    values : (R, C) float64
        What belongs to the path that ends at each voxel.

    Returns
    -------
    links : (R,) int64
        Last link of the shortest path to each voxel: row of `graph.costs` times S, plus its
        column; -1 where a path starts.
    sums : (R, C) float64
        The values of the voxel and of all whose path leads over it.

    Notes
    -----
    Of several links that end equally near the first of the 2 S directions counts. Voxels are
    summed from the farthest to the nearest.
    """
    far = np.full(len(graph.costs), np.inf)
    far[voxels] = distance_mm
    n, width = len(voxels), len(graph.steps)
    best, links = np.full(n, ROOT_MM), np.full(n, -1)
    before = np.full(n, -1)
    for s in range(2 * width):
        step, column = graph.steps[s % width], s % width
        u = voxels + step if s < width else voxels - step
        owner = voxels if s < width else u
        late = far[u] + graph.costs[owner, column].astype(np.float64) - distance_mm
        better = late < best
        best[better], before[better] = late[better], u[better]
        links[better] = owner[better] * width + column
    sums = values.astype(np.float64)
    row = np.searchsorted(voxels, before)
    for i in np.argsort(-distance_mm, kind="stable"):
        if links[i] >= 0:
            sums[row[i]] += sums[i]
    return links, sums


@njit(cache=True, nogil=True)
def _sum_back(costs, steps, voxels, distance_mm, order, far, sums, links):  # type: ignore[no-untyped-def]
    """Compiled form; `far` is inf everywhere, before and after."""
    n, width = len(voxels), len(steps)
    for i in range(n):
        far[voxels[i]] = distance_mm[i]
    for i in range(n):
        j = order[i]
        v = voxels[j]
        best, before = ROOT_MM, -1
        for s in range(2 * width):
            if s < width:
                u = v + steps[s]
                link = v * width + s
            else:
                u = v - steps[s - width]
                link = u * width + s - width
            late = far[u] + costs[link // width, link % width] - distance_mm[j]
            if late < best:
                best, before, links[j] = late, u, link
        if before >= 0:
            low, high = 0, n - 1
            while low < high:
                middle = (low + high) // 2
                if voxels[middle] < before:
                    low = middle + 1
                else:
                    high = middle
            for c in range(sums.shape[1]):
                sums[low, c] += sums[j, c]
    for i in range(n):
        far[voxels[i]] = np.inf


def _cpu(
    graph: Graph, voxels: np.ndarray, distance_mm: np.ndarray, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    sums = values.astype(np.float64)  # a copy
    links = np.full(len(voxels), -1)
    order = np.argsort(-distance_mm, kind="stable")
    far = graph.scratch()
    _sum_back(graph.costs, graph.steps, voxels, distance_mm, order, far, sums, links)
    return links, sums


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    (graph, *peak), _ = distance.virtual_distance.sample(rng)
    voxels, far = distance.virtual_distance.cpu(graph, *peak)  # type: ignore[misc]
    return (graph, voxels, far, rng.standard_normal((len(voxels), 2))), {}


path_sums = Op("path_sums", numpy=_numpy, cpu=_cpu, sample=_sample, rtol=1e-12)
