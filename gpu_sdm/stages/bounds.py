"""Bounds: the range in which the effect of a study lies at every voxel, from peaks or its map."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Lock

import numpy as np

from gpu_sdm import cache
from gpu_sdm.config import Settings
from gpu_sdm.data import Bounds, Dataset, Notice, Study, _freeze
from gpu_sdm.errors import SpaceError
from gpu_sdm.ops.virtual_distance import Graph, peak_distance
from gpu_sdm.spaces import Space
from gpu_sdm.stages.effects import effect_to_bound, peaks_as_used
from gpu_sdm.stages.images import image_effects
from gpu_sdm.stages.peak_sums import PeakSums, in_mask
from gpu_sdm.templates import OFFSETS, Template

# The kernel ends where k = 2^-9, that is at 1.5 FWHM.
REACH_PER_FWHM = 1.5
# A part of the key of cached bounds: raise it whenever the numbers change.
CODE_VERSION = "bounds 1"

Progress = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class PeakReach:
    """What became of each peak; rows in the order of studies, then of their peaks."""

    study: np.ndarray  # (n,) int32 row of the study
    peak: np.ndarray  # (n,) int32 row of the peak in its study
    in_mask: np.ndarray  # (n,) bool; its nearest voxel is analysed
    reached: np.ndarray  # (n,) int32 analysed voxels where its kernel is not 0

    def __post_init__(self) -> None:
        _freeze(self.study, self.peak, self.in_mask, self.reached)


def peak_kernel(distance_mm: np.ndarray, fwhm: float) -> np.ndarray:
    """Weight of a peak at a virtual distance: a Gaussian of full width `fwhm` mm."""
    sigma = fwhm / math.sqrt(8 * math.log(2))
    return np.exp(-(distance_mm**2) / (2 * sigma**2))


def _graph(template: Template) -> Graph:
    return Graph(template.costs, OFFSETS, template.voxel_size, template.domain)


def bounds_of_peaks(
    xyz_mm: Sequence[np.ndarray],
    g: Sequence[np.ndarray],
    b: np.ndarray,
    space: Space,
    template: Template,
    *,
    fwhm: float = 20.0,
    anisotropy: float = 1.0,
    backend: str = "cpu",
    threads: int | None = None,
    progress: Progress | None = None,
) -> tuple[Bounds, PeakReach]:
    """Bounds of the effects of studies of which peaks are known.

    Parameters
    ----------
    xyz_mm : sequence of K (n_k, 3) arrays
        Peaks of each study, MNI millimetres.
    g : sequence of K (n_k,) arrays
        Their effects, Hedges g.
    b : (K,) array
        Effect at the threshold of each study: what is not reported lies within [-b, b].
    space, template
        Grid and mask; distances on the same grid.
    fwhm : float
        Width of the kernel, mm. The costs of the template stay at its reference width.
    anisotropy : float
        1: virtual distance; 0: Euclidean.
    backend : {"cpu", "numpy"}
        Compiled shortest paths, or scipy's.
    threads : int, optional
        Studies worked on at once; the result does not depend on it.
    progress : callable, optional
        progress(peaks done, all peaks); called from worker threads, one at a time.

    Returns
    -------
    Bounds
        (K, V) lower and upper limits; equal where a peak lies within 1.75 virtual mm.
    PeakReach
        Rows of all peaks.

    Notes
    -----
    With weights w_i = (1/D_i^2) / sum_j (1/D_j^2) over the peaks in reach,
    lower = -b + sum w_i k_i (g_i + b) and upper = b + sum w_i k_i (g_i - b). Where D = 0 the
    peak itself is what is known. Peaks outside the mask spread into it. One study's five sums are
    all that a thread holds.

    References
    ----------
    .. [1] Albajes-Eizagirre et al. 2019, NeuroImage 186:174.
    """
    if template.voxel_size != space.voxel_size:
        raise SpaceError(
            f"The template is on the {template.voxel_size} mm grid and the mask on the "
            f"{space.voxel_size} mm one; use one voxel size."
        )
    b = np.asarray(b, np.float64)
    if not (np.isfinite(b) & (b > 0)).all():
        raise ValueError(f"effects at the threshold must be finite and positive, not {b}")
    counts = [len(x) for x in xyz_mm]
    starts = np.concatenate([[0], np.cumsum(counts)]).astype(int)
    lower = np.empty((len(b), space.n_voxels), np.float32)
    upper = np.empty_like(lower)
    reached = np.zeros(starts[-1], np.int32)
    position = np.full(len(template.costs), -1, np.int32)
    position[space.index] = np.arange(space.n_voxels)
    graph, lock, done = _graph(template), Lock(), 0

    def tick() -> None:
        nonlocal done
        with lock:
            done += 1
            if progress is not None:
                progress(done, int(starts[-1]))

    def one_study(k: int) -> None:
        sums = PeakSums(space.n_voxels)
        for i, (xyz, effect) in enumerate(zip(xyz_mm[k], g[k], strict=True)):
            voxels, far = peak_distance(graph, xyz, REACH_PER_FWHM * fwhm, anisotropy, backend)
            voxels = position[voxels]
            far, voxels = far[voxels >= 0], voxels[voxels >= 0]
            sums.add(voxels, far, peak_kernel(far, fwhm), float(effect))
            reached[starts[k] + i] = len(voxels)
            tick()
        lower[k], upper[k] = sums.limits(b[k])

    # Studies with many peaks first, so that no thread is left alone with one at the end.
    order = sorted(range(len(b)), key=lambda k: -counts[k])
    with ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
        for _ in pool.map(one_study, order):
            pass
    xyz = np.concatenate([np.zeros((0, 3)), *(np.reshape(x, (-1, 3)) for x in xyz_mm)])
    rows = np.repeat(np.arange(len(b), dtype=np.int32), counts)
    peak = (np.arange(starts[-1]) - starts[rows]).astype(np.int32)
    return Bounds(lower, upper), PeakReach(rows, peak, in_mask(space, xyz), reached)


def peak_notices(dataset: Dataset, reach: PeakReach) -> tuple[Notice, ...]:
    """Name every peak outside the mask, and every one that reaches no voxel of it."""
    found = []
    for k, i, inside, reached in zip(
        reach.study, reach.peak, reach.in_mask, reach.reached, strict=True
    ):
        study = dataset.studies[k]
        x, y, z = study.peaks.xyz_mm[i]
        where = f"{study.peaks.source}:{study.peaks.lines[i]}: the peak ({x:.4g}, {y:.4g}, {z:.4g})"
        if not inside:
            found.append(Notice("peak_outside_mask", f"{where} lies outside the mask."))
        if not reached:
            found.append(Notice("peak_no_reach", f"{where} reaches no voxel of the mask."))
    return tuple(found)


def study_bounds(
    dataset: Dataset,
    space: Space,
    template: Template | None,
    settings: Settings,
    progress: Progress | None = None,
    *,
    backend: str = "cpu",
    threads: int | None = None,
) -> tuple[Bounds, tuple[Notice, ...], PeakReach]:
    """Bounds of the studies of a data set, taken from the cache where nothing has changed.

    Parameters
    ----------
    dataset : Dataset
        K studies.
    space, template
        Grid and mask; distances on the same grid, None where every study has an image.
    settings : Settings
        `fwhm`, `anisotropy` and `compat` count here.
    progress, backend, threads
        As for `bounds_of_peaks`.

    Returns
    -------
    Bounds, tuple of Notice, PeakReach
        Notices of kind `peak_outside_mask` and `peak_no_reach`, and of
        `gpu_sdm.io.image_effects.image_doubts`; rows for the table of peaks.

    Notes
    -----
    Study names, covariates and the order of the table's columns are no part of the cache key: a
    new model of the same peaks reuses the bounds. A study with an image is known where the image
    has data, and unbounded elsewhere.
    """
    with_peaks = [k for k, s in enumerate(dataset.studies) if s.image is None]
    with_image = [k for k, s in enumerate(dataset.studies) if s.image is not None]
    if not with_image:
        bounds, reach = _peak_bounds(
            dataset.studies, space, _needed(template), settings, progress, backend, threads
        )
        return bounds, peak_notices(dataset, reach), reach
    total = sum(len(s.peaks) for s in dataset.studies) + len(with_image)

    def tick(done: int, _: int) -> None:
        if progress is not None:
            progress(done, total)

    g, notices = image_effects(
        [dataset.studies[k] for k in with_image], space, threads=threads, progress=tick
    )
    lower = np.empty((len(dataset.studies), space.n_voxels), np.float32)
    upper = np.empty_like(lower)
    lower[with_image] = np.where(np.isnan(g), np.float32(-np.inf), g)
    upper[with_image] = np.where(np.isnan(g), np.float32(np.inf), g)
    reach = PeakReach(*(np.zeros(0, t) for t in (np.int32, np.int32, bool, np.int32)))
    if with_peaks:
        part, found = _peak_bounds(
            [dataset.studies[k] for k in with_peaks],
            space,
            _needed(template),
            settings,
            lambda done, _: tick(len(with_image) + done, total),
            backend,
            threads,
        )
        lower[with_peaks], upper[with_peaks] = part.lower, part.upper
        rows = np.array(with_peaks, np.int32)[found.study]
        reach = PeakReach(rows, found.peak, found.in_mask, found.reached)
    return Bounds(lower, upper), notices + peak_notices(dataset, reach), reach


def _needed(template: Template | None) -> Template:
    if template is None:
        raise ValueError("studies with peaks need a template")
    return template


def _peak_bounds(
    studies: Sequence[Study],
    space: Space,
    template: Template,
    settings: Settings,
    progress: Progress | None,
    backend: str,
    threads: int | None,
) -> tuple[Bounds, PeakReach]:
    """Bounds of studies with peaks, cached by content."""
    used = [peaks_as_used(s, settings.sdm_compat) for s in studies]
    xyz, g = [x for x, _ in used], [effect for _, effect in used]
    b = effect_to_bound(studies)
    where = (space.digest(), template.digest(), settings.fwhm, settings.anisotropy, backend)
    peaks = [array for pair in zip(xyz, g, strict=True) for array in pair]
    entry = cache.key("bounds", CODE_VERSION, *where, b, *peaks)
    stored = cache.load("bounds", entry)
    if stored is not None:
        bounds = Bounds(stored["lower"], stored["upper"])
        reach = PeakReach(*(stored[name] for name in ("study", "peak", "in_mask", "reached")))
        if progress is not None:
            progress(len(reach.study), len(reach.study))
    else:
        bounds, reach = bounds_of_peaks(
            xyz,
            g,
            b,
            space,
            template,
            fwhm=settings.fwhm,
            anisotropy=settings.anisotropy,
            backend=backend,
            threads=threads,
            progress=progress,
        )
        cache.store(
            "bounds",
            entry,
            lower=bounds.lower,
            upper=bounds.upper,
            study=reach.study,
            peak=reach.peak,
            in_mask=reach.in_mask,
            reached=reach.reached,
        )
    return bounds, reach
