"""Learn a correlation template from the kernels that another program's bound maps show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from typing import NamedTuple

import numpy as np
from scipy import ndimage

from gpu_sdm.ops._graph import Graph
from gpu_sdm.ops.path_sums import path_sums
from gpu_sdm.ops.virtual_distance import COLLAPSE_MM, virtual_distance
from gpu_sdm.spaces import Space
from gpu_sdm.stages.bounds import REACH_PER_FWHM, bounds_of_peaks, peak_kernel
from gpu_sdm.stages.peak_sums import PeakSums
from gpu_sdm.templates import (
    MM_PER_UNIT,
    OFFSETS,
    R_MAX,
    R_MIN,
    REFERENCE_FWHM,
    Template,
    costs_of,
    index_steps,
)

LIMIT_MM = REACH_PER_FWHM * REFERENCE_FWHM
LEAST_KERNEL = 2.0**-9  # the kernel ends here
# A part of the key of what is kept between runs: raise it whenever the numbers change.
CODE_VERSION = "learned template 1"

SWEEPS = 20
_STEP = 2.0  # relaxation; 3 does not converge
_SIGMA = 1.0  # voxels over which neighbouring links share what they learn
_ACROSS = 0.3  # share of it that all directions have in common
_DAMPING = 0.05  # of the median evidence of a link: with less than this it hardly moves
_FLAT = 0.02  # a voxel whose kernel hardly depends on its distances moves nothing
_MOST = 0.3  # largest change of a logarithm in one sweep
_AT_PEAK = float(peak_kernel(np.array(COLLAPSE_MM), REFERENCE_FWHM))


@dataclass(frozen=True, slots=True, eq=False)
class SummedKernel:
    """What the kernels of one study's peaks sum to."""

    name: str
    space: Space
    xyz_mm: np.ndarray  # (n, 3) peaks, MNI mm
    kernel: np.ndarray  # (V,) float32, 1 - (upper - lower) / 2b


class KernelScore(NamedTuple):
    """Agreement of summed kernels, over the voxels that the other program's reach."""

    rmse: float
    r: float
    dice: float  # of the reach


class _Path(NamedTuple):
    """The reach of one peak."""

    voxels: np.ndarray  # (R,) of the grid
    far: np.ndarray  # (R,) virtual mm
    row: np.ndarray  # (m,) which of them are analysed and not at the peak itself
    at: np.ndarray  # (m,) their place in the mask
    k: np.ndarray  # (m,)


def widened(template: Template, mask: np.ndarray) -> Template:
    """Link the voxels of a mask (X, Y, Z), and those around it, where the template does not.

    A link that is missing is as long as it is in space: one virtual mm per mm.
    """
    inside = ndimage.binary_dilation(mask, np.ones((3, 3, 3), bool))
    inside |= template.domain.reshape(template.shape, order="F")
    for axis in range(3):
        np.moveaxis(inside, axis, 0)[[0, -1]] = False  # no path may wrap around
    flat = inside.ravel(order="F")
    costs = template.costs.copy()
    for column, (offset, step) in enumerate(zip(OFFSETS, index_steps(template.shape), strict=True)):
        missing = flat & np.roll(flat, -step) & ~np.isfinite(costs[:, column])
        costs[missing, column] = template.voxel_size * np.sqrt((offset**2).sum())
    return Template(template.voxel_size, costs)


def score_kernels(template: Template, studies: Sequence[SummedKernel]) -> KernelScore:
    """Compare the kernels that a template gives the studies' peaks with those observed."""
    ours, theirs = [], []
    for study in studies:
        bounds, _ = bounds_of_peaks(
            [study.xyz_mm], [np.zeros(len(study.xyz_mm))], np.ones(1), study.space, template
        )
        ours.append(1 + bounds.lower[0])
        theirs.append(study.kernel)
    a, b = np.concatenate(ours).astype(float), np.concatenate(theirs).astype(float)
    in_a, in_b = a > LEAST_KERNEL, b > LEAST_KERNEL
    error = float(np.sqrt(((a - b)[in_b] ** 2).mean()))
    r = float(np.corrcoef(a[in_b], b[in_b])[0, 1])
    return KernelScore(error, r, float(2 * (in_a & in_b).sum() / (in_a.sum() + in_b.sum())))


def _paths(
    graph: Graph, study: SummedKernel, position: np.ndarray, backend: str
) -> tuple[list[_Path], PeakSums]:
    """Every peak's reach, and what the peaks sum to in the mask."""
    paths, sums = [], PeakSums(study.space.n_voxels)
    for xyz in study.xyz_mm:
        sources, start = graph.sources(xyz)
        if not len(sources):
            continue
        voxels, far = virtual_distance.on(backend)(graph, sources, start, LIMIT_MM)
        at = position[voxels]
        near = far <= COLLAPSE_MM
        k = peak_kernel(far, REFERENCE_FWHM)
        inside = at >= 0
        sums.add(at[inside], np.where(near, 0.0, far)[inside], k[inside], 0.0)
        row = np.flatnonzero(inside & ~near)
        paths.append(_Path(voxels, far, row, at[row], k[row]))
    return paths, sums


def _wishes(
    graph: Graph, study: SummedKernel, position: np.ndarray, backend: str
) -> tuple[np.ndarray, np.ndarray]:
    """Links that one study's paths use, (n,), and how they should change, (n, 2).

    The second holds, for every link, the sum over its paths of their wish (to be longer or
    shorter, as a share of their length) times the link's length, and of their say in it.
    """
    paths, sums = _paths(graph, study, position, backend)
    ours = sums.kernel()
    # Within the collapse the kernel is written as 1: a path there is short enough, or too long.
    known = study.kernel >= 1 - 1e-5
    error = np.where(known, np.maximum(_AT_PEAK - ours, 0), study.kernel - ours)
    error[(sums.here > 0) | (sums.w == 0)] = 0
    # How the weighted mean of kernels moves with the logarithm of each distance.
    slopes = []
    total = np.zeros(len(ours))
    for p in paths:
        far = p.far[p.row]
        slope = -2 / far**2 * (p.k - ours[p.at] + p.k * far**2 / MM_PER_UNIT**2) / sums.w[p.at]
        slopes.append(slope)
        total[p.at] += np.abs(slope)
    links, wishes = [], []
    for p, slope in zip(paths, slopes, strict=True):
        far = p.far[p.row]
        values = np.zeros((len(p.voxels), 2))
        values[p.row, 0] = slope * error[p.at] / (total[p.at] + _FLAT) / far
        values[p.row, 1] = np.abs(slope) / far
        last, summed = path_sums.on(backend)(graph, p.voxels, p.far, values)
        used = last >= 0
        links.append(last[used])
        wishes.append(summed[used] * graph.costs.ravel()[last[used], None])
    return np.concatenate([np.zeros(0, int), *links]), np.concatenate([np.zeros((0, 2)), *wishes])


def _shared(values: np.ndarray, shape: tuple[int, int, int], threads: int | None) -> np.ndarray:
    """Smooth (N, 13) over neighbouring voxels, and towards the mean of the directions."""
    with ThreadPoolExecutor(threads) as pool:
        smooth = list(
            pool.map(
                lambda column: ndimage.gaussian_filter(
                    column.reshape(shape, order="F"), _SIGMA
                ).ravel(order="F"),
                values.T,
            )
        )
    over = np.stack(smooth, axis=1)
    shared: np.ndarray = (1 - _ACROSS) * over + _ACROSS * over.mean(axis=1, keepdims=True)
    return shared


def sweep(
    template: Template,
    studies: Sequence[SummedKernel],
    threads: int | None = None,
    backend: str = "cpu",
) -> Template:
    """Lengthen and shorten the links once, towards the kernels observed.

    Parameters
    ----------
    template : Template
        Before.
    studies : sequence of SummedKernel
        What is to be met.
    threads : int, optional
        Studies worked on at once; the result does not depend on it.
    backend : {"cpu", "numpy"}
        Compiled paths and sums, or their plain twins.

    Returns
    -------
    Template
        After.

    Notes
    -----
    The simultaneous iterative reconstruction of travel-time tomography, on logarithms: every
    voxel divides its error among the paths that end there by how much the kernel depends on
    each, every path asks all its links to change by one share, and a link takes the mean of
    what it is asked, weighed by its part in each path and smoothed over neighbouring links.

    References
    ----------
    .. [1] Gilbert 1972, J Theor Biol 36:105 (the reconstruction).
    """
    graph = Graph(template.costs, OFFSETS, template.voxel_size, template.domain)
    positions = {study.space.digest(): _position(study.space, template) for study in studies}
    wish = np.zeros(template.costs.size)
    say = np.zeros(template.costs.size)
    with ThreadPoolExecutor(threads) as pool:
        where = [positions[study.space.digest()] for study in studies]
        for links, values in pool.map(_wishes, repeat(graph), studies, where, repeat(backend)):
            np.add.at(wish, links, values[:, 0])  # in the order of the studies
            np.add.at(say, links, values[:, 1])
    if not say.any():
        return template
    least = _DAMPING * float(np.median(say[say > 0]))
    wish, say = (
        _shared(a.reshape(template.costs.shape), template.shape, threads) for a in (wish, say)
    )
    change = np.clip(_STEP * wish / (say + least), -_MOST, _MOST)
    shortest, longest = costs_of(np.array([R_MAX, R_MIN]))
    costs = template.costs * np.exp(change)
    held = np.where(np.isfinite(template.costs), np.clip(costs, shortest, longest), np.inf)
    return Template(template.voxel_size, held.astype(np.float32))


def _position(space: Space, template: Template) -> np.ndarray:
    position = np.full(len(template.costs), -1, np.int32)
    position[space.index] = np.arange(space.n_voxels)
    return position


def learn(
    start: Template,
    studies: Sequence[SummedKernel],
    *,
    done: int = 0,
    sweeps: int = SWEEPS,
    threads: int | None = None,
    after: Callable[[int, Template], None] | None = None,
) -> Template:
    """Sweep a number of times.

    Parameters
    ----------
    start : Template
        Where to begin: a link that no path uses keeps its length.
    studies : sequence of SummedKernel
        What is to be met.
    done : int
        Sweeps that lie behind `start`.
    sweeps : int
        Sweeps in all.
    threads : int, optional
        As for `sweep`.
    after : callable, optional
        after(sweeps done, template), once per sweep.
    """
    template = start
    for number in range(done, sweeps):
        template = sweep(template, studies, threads)
        if after is not None:
            after(number + 1, template)
    return template
