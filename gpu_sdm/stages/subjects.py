"""Simulate the subjects of every study: unit residual images, shared by all imputations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from gpu_sdm.backend import Backend
from gpu_sdm.data import Study
from gpu_sdm.errors import SettingError
from gpu_sdm.ops.smooth_images import SIGMAS_PER_FWHM, SMOOTH_IMAGES
from gpu_sdm.ops.subject_images import SUBJECT_IMAGES
from gpu_sdm.rng import stream_key
from gpu_sdm.spaces import Space

LAGS = (1, 2, 4, 8, 16)  # voxels
LAG_STARTS = 4000  # voxels that these are measured from at least, evenly over the mask


@dataclass(frozen=True, slots=True, eq=False)
class SubjectBank:
    """Unit residuals of the simulated subjects of K studies.

    Parameters
    ----------
    residuals : tuple of (N_k, V) float32
        One array per study, the n1 rows of group 1 first; each group has mean 0 and variance 1
        (divisor n - 1) of its own at every voxel.
    n1, n2 : (K,) int64
        Group sizes; n2 = 0 for a one-sample study.
    infeasible : float
        Share of voxels whose wanted correlations no sample can have, groups weighted by size.
    """

    residuals: tuple[np.ndarray, ...]
    n1: np.ndarray
    n2: np.ndarray
    infeasible: float

    def __post_init__(self) -> None:
        for a in (*self.residuals, self.n1, self.n2):
            if isinstance(a, np.ndarray):  # else in a file (gpu_sdm.distribute.slabs)
                a.flags.writeable = False

    def lag_profile(self, space: Space, lags: Sequence[int] = LAGS) -> dict[int, float]:
        """Achieved correlation between voxels some voxels apart along a grid axis.

        Parameters
        ----------
        space : Space
            Grid and mask of the images.
        lags : sequence of int
            Distances in voxels.

        Returns
        -------
        dict of int to float
            Mean over pairs and axes of the correlation pooled over studies; NaN for a lag that
            no pair of the mask has.
        """
        position = np.full(space.shape, -1, np.int64)
        ijk = space.ijk()
        position[tuple(ijk.T)] = np.arange(len(ijk))
        start = np.arange(0, len(ijk), max(len(ijk) // LAG_STARTS, 1))
        freedom = float(sum(len(r) for r in self.residuals) - len(self.n1) - (self.n2 > 0).sum())
        places = []
        for lag in lags:
            first, second = [], []
            for axis in range(3):
                there = ijk[start].copy()
                there[:, axis] += lag
                fits = there[:, axis] < space.shape[axis]
                found = position[tuple(there[fits].T)]
                first.append(start[fits][found >= 0])
                second.append(found[found >= 0])
            places.append((np.concatenate(first), np.concatenate(second)))
        needed = np.unique(np.concatenate([x for pair in places for x in pair]))
        inside = [tuple(np.searchsorted(needed, x) for x in pair) for pair in places]
        totals = [0.0] * len(inside)
        for r in self.residuals:
            images = r[:, needed]  # read once: they may lie on disk
            for i, (a, b) in enumerate(inside):
                totals[i] += float(
                    np.einsum("nv,nv->", images[:, a], images[:, b], dtype=np.float64)
                )
        return {
            lag: total / (freedom * len(a)) if len(a) else float("nan")
            for lag, total, (a, _) in zip(lags, totals, places, strict=True)
        }


def subject_bank(
    studies: Sequence[Study],
    space: Space,
    seed: int,
    noise: tuple[str, float],
    r_face: np.ndarray | None,
    backend: Backend,
    progress: Callable[[int, int], None] = lambda done, total: None,
    into: Callable[[Sequence[int], int], Sequence[np.ndarray]] | None = None,
) -> SubjectBank:
    """Simulate the subjects of every study.

    Parameters
    ----------
    studies : sequence of Study
        Names and group sizes.
    space : Space
        Grid and mask.
    seed : int
        Seed of the analysis.
    noise : tuple of str and float
        Law of the images, as `Settings.noise_law` gives it: ("scan", face correlation),
        ("gaussian", FWHM in mm) or ("template", power of the template's correlation).
    r_face : (V, 3) float or None
        Template correlation with the face neighbours -x -y -z, for the template law.
    backend : Backend
        Where to run; the images do not depend on its number of threads.
    progress : callable
        Called with the number of subjects built so far and of all.
    into : callable, optional
        Makes what the images of each study are written to from the numbers of subjects and of
        voxels; arrays in memory by default.

    Returns
    -------
    SubjectBank

    Raises
    ------
    SettingError
        If the template law has no template.

    Notes
    -----
    Images depend on seed, study name, group and full-grid voxel index alone, given the mask.
    """
    kind, value = noise
    wanted: np.ndarray | float = value
    if kind == "template":
        if r_face is None:
            raise SettingError("noise template:POWER needs the template's face correlations.")
        wanted = np.asarray(r_face, np.float64) ** value
    backward = np.ascontiguousarray(space.neighbours()[:, :3])
    if kind == "template":
        # Neighbours that the template does not link are no neighbours.
        backward = np.where(wanted > 0, backward, np.int32(-1))
    residuals = (
        tuple(np.empty((s.n, space.n_voxels), np.float32) for s in studies)
        if into is None
        else tuple(into([s.n for s in studies], space.n_voxels))
    )
    jobs = [
        (k, group, n)
        for k, s in enumerate(studies)
        for group, n in enumerate((s.n1, s.n2))
        if n > 0
    ]

    def build(job: tuple[int, int, int]) -> tuple[int, int]:
        k, group, n = job
        key = stream_key(seed, "subjects", studies[k].name)
        rows = slice(studies[k].n1, studies[k].n) if group else slice(0, studies[k].n1)
        if kind == "gaussian":
            sigma = value * SIGMAS_PER_FWHM / space.voxel_size
            residuals[k][rows] = SMOOTH_IMAGES.on(backend.name)(
                space.shape, sigma, n, key, group, space.index
            )
            return n, 0
        images, infeasible = SUBJECT_IMAGES.on(backend.name)(
            backward, wanted, n, key, group, space.index
        )
        residuals[k][rows] = images
        return n, infeasible

    done, infeasible = 0, 0
    with ThreadPoolExecutor(backend.threads) as pool:
        # Largest groups first, so that no thread is left with one at the end.
        for n, bad in pool.map(build, sorted(jobs, key=lambda job: -job[2])):
            done += n
            infeasible += n * bad
            progress(done, sum(n for _, _, n in jobs))
    return SubjectBank(
        residuals,
        np.array([s.n1 for s in studies], np.int64),
        np.array([s.n2 for s in studies], np.int64),
        infeasible / (done * space.n_voxels),
    )
