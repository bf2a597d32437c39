"""Virtual distance from a reported peak: shortest paths over the correlation template."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
from numba import njit
from scipy import sparse
from scipy.sparse.csgraph import dijkstra

from gpu_sdm.ops._graph import Graph as Graph  # what peak_distance takes
from gpu_sdm.ops._op import Op
from gpu_sdm.spaces import SHAPES

# A peak within this many virtual mm is the peak itself: its voxel's effect becomes known.
COLLAPSE_MM = 1.75


def _numpy(
    graph: Graph, sources: np.ndarray, start_mm: np.ndarray, limit_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    """Virtual distance from a peak to every voxel within a limit.

    Parameters
    ----------
    graph : Graph
        The template.
    sources : (n,) int64
        Voxels the paths start from.
    start_mm : (n,) float64
        Distance at which each of them starts.
    limit_mm : float
        Farther voxels are left out.

    Returns
    -------
    voxels : (R,) int64
        Full-grid indices in reach, increasing.
    distance_mm : (R,) float64
        Virtual mm to each: the smallest sum of costs along a 26-connected path, plus the start.

    Notes
    -----
    Distances add along a path; correlations do not multiply: that is what SDM-PSI's own maps
    show. Dijkstra's algorithm from an extra node that the sources hang on.

    References
    ----------
    .. [1] Radua et al. 2014, Front Psychiatry 5:13 (anisotropic kernels).
    """
    n = len(graph.costs)
    first = sparse.csr_matrix((start_mm + 1.0, (np.zeros(len(sources), int), sources)), (1, n))
    grown = sparse.vstack([graph.matrix, first], format="csr")
    grown.resize(n + 1, n + 1)
    ways: Any = dijkstra  # scipy-stubs know only some forms of its call
    # A link of length 0 is no link to scipy: starts are one mm longer, and so is the limit.
    far = ways(grown, directed=True, indices=n, limit=limit_mm + 1.0)[:n] - 1.0
    voxels = np.flatnonzero(far <= limit_mm)
    return voxels, far[voxels]


@njit(cache=True, nogil=True)
def _push(keys, nodes, size, key, node):  # type: ignore[no-untyped-def]
    """Add to a binary heap of `size` entries, in arrays with room."""
    at = size
    while at > 0:
        parent = (at - 1) >> 1
        if keys[parent] <= key:
            break
        keys[at], nodes[at] = keys[parent], nodes[parent]
        at = parent
    keys[at], nodes[at] = key, node


@njit(cache=True, nogil=True)
def _pop(keys, nodes, size):  # type: ignore[no-untyped-def]
    """Remove the top of a heap of `size` entries."""
    key, node = keys[size - 1], nodes[size - 1]
    size -= 1
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and keys[child + 1] < keys[child]:
            child += 1
        if keys[child] >= key:
            break
        keys[at], nodes[at] = keys[child], nodes[child]
        at = child
    keys[at], nodes[at] = key, node


@njit(cache=True, nogil=True)
def _spread(costs, steps, sources, start, limit, distance):  # type: ignore[no-untyped-def]
    """Dijkstra with a lazy heap; `distance` is inf everywhere, before and after."""
    room = 4096
    keys, nodes = np.empty(room), np.empty(room, np.int64)
    size = 0
    touched = np.empty(room, np.int64)
    count = 0
    for s in range(len(sources)):
        v = sources[s]
        if start[s] <= limit and start[s] < distance[v]:
            if distance[v] == np.inf:
                touched[count] = v
                count += 1
            distance[v] = start[s]
            _push(keys, nodes, size, start[s], v)
            size += 1
    while size > 0:
        key, v = keys[0], nodes[0]
        _pop(keys, nodes, size)
        size -= 1
        if key > distance[v]:
            continue  # a shorter path was found after this entry went in
        if size + 2 * len(steps) > len(keys):
            wider_keys, wider_nodes = np.empty(2 * len(keys)), np.empty(2 * len(keys), np.int64)
            for i in range(size):  # to assign a slice takes numba two seconds to compile
                wider_keys[i], wider_nodes[i] = keys[i], nodes[i]
            keys, nodes = wider_keys, wider_nodes
        if count + 2 * len(steps) > len(touched):
            wider = np.empty(2 * len(touched), np.int64)
            for i in range(count):
                wider[i] = touched[i]
            touched = wider
        for s in range(2 * len(steps)):
            if s < len(steps):
                u = v + steps[s]
                to = key + costs[v, s]
            else:
                u = v - steps[s - len(steps)]
                to = key + costs[u, s - len(steps)]
            if to <= limit and to < distance[u]:
                if distance[u] == np.inf:
                    touched[count] = u
                    count += 1
                distance[u] = to
                _push(keys, nodes, size, to, u)
                size += 1
    return touched[:count]


def _cpu(
    graph: Graph, sources: np.ndarray, start_mm: np.ndarray, limit_mm: float
) -> tuple[np.ndarray, np.ndarray]:
    distance = graph.scratch()
    voxels = _spread(graph.costs, graph.steps, sources, start_mm, float(limit_mm), distance)
    voxels = np.sort(voxels)  # not in compiled code: numba's own sort takes a second to compile
    found = distance[voxels]
    distance[voxels] = np.inf
    return voxels, found


def _sample(rng: np.random.Generator) -> tuple[tuple[Any, ...], dict[str, Any]]:
    offsets = np.array([o for o in itertools.product((-1, 0, 1), repeat=3) if o > (0, 0, 0)])
    shape = SHAPES[4]
    domain = np.zeros(shape, bool)
    domain[10:30, 15:35, 10:30] = rng.random((20, 20, 20)) < 0.9
    costs = np.full((int(np.prod(shape)), len(offsets)), np.inf, np.float32)
    for column, offset in enumerate(offsets):
        both = (domain & np.roll(domain, tuple(-offset), (0, 1, 2))).ravel(order="F")
        length = 5 * np.linalg.norm(offset) * rng.uniform(0.7, 1.5, both.sum())
        costs[both, column] = length
    graph = Graph(costs, offsets, 4, domain.ravel(order="F"))
    peak = rng.uniform((-20, -60, -25), (45, 5, 40))
    return (graph, *graph.sources(peak), 30.0), {}


virtual_distance = Op("virtual_distance", numpy=_numpy, cpu=_cpu, sample=_sample, rtol=1e-12)


def peak_distance(
    graph: Graph, xyz_mm: np.ndarray, limit_mm: float, anisotropy: float, backend: str = "cpu"
) -> tuple[np.ndarray, np.ndarray]:
    """Distance from a peak to the voxels in its reach, mixed of virtual and Euclidean.

    Parameters
    ----------
    graph : Graph
        The template.
    xyz_mm : (3,) array
        The peak, MNI millimetres.
    limit_mm : float
        Reach, in mm of the mixed distance.
    anisotropy : float
        D^2 = (1 - anisotropy) D_euclid^2 + anisotropy D_virtual^2.
    backend : {"cpu", "numpy"}
        Which version of `virtual_distance` runs.

    Returns
    -------
    voxels : (R,) int64
        Full-grid indices in reach, increasing; none for a peak with no domain voxel around it.
    distance_mm : (R,) float64
        Mixed mm; 0 within `COLLAPSE_MM`, where SDM-PSI takes a voxel for the peak itself.
    """
    sources, start_mm = graph.sources(xyz_mm)
    if not len(sources):
        return sources, start_mm
    if anisotropy > 0:
        run = virtual_distance.on(backend)
        voxels, far = run(graph, sources, start_mm, limit_mm / math.sqrt(anisotropy))
    else:
        voxels, far = np.flatnonzero(graph.domain), np.zeros(1)
    if anisotropy < 1:
        straight = graph.distance_mm(voxels, xyz_mm)
        far = np.sqrt((1 - anisotropy) * straight**2 + anisotropy * far**2)
    near = far < limit_mm
    voxels, far = voxels[near], far[near]
    return voxels, np.where(far <= COLLAPSE_MM, 0.0, far)
