"""Memory and time of an analysis before it is run, from small pieces of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sdm.analysis import Analysis, limited_threads
from gpu_sdm.distribute.memory import plan_layout
from gpu_sdm.environment import memory_bytes
from gpu_sdm.stages.estimate import search_of
from gpu_sdm.workload import Workload, rate, seconds

# Measured on 2 cores of a server processor (bench/permute.py): nanoseconds per drawn value.
NS_PER_IMPUTATION = 20.0
NS_PER_SUBJECT_VOXEL = 45.0
NS_PER_PEAK_VOXEL = 33.0  # shortest paths
NS_PER_SCORE = 111.0  # a study's part at a voxel
SAMPLE = 2000  # voxels on which the likelihood is timed


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will need.

    Parameters
    ----------
    memory : int
        Bytes at the peak.
    disk : int
        Bytes of effects and subject images in files, as they do not fit the memory; else 0.
    free : int or None
        Bytes that can be had now; None where the system does not tell.
    preparation : float
        Seconds before the first permutation.
    rate : float
        Permutations per second.
    """

    memory: int
    disk: int
    free: int | None
    preparation: float
    rate: float


def forecast(analysis: Analysis, budget: int | None = None) -> Forecast:
    """Measure the speed of the permutations, and a sample of the likelihood, and scale up."""
    settings, backend, v = analysis.settings, analysis.backend, analysis.space.n_voxels
    workload = Workload.of(analysis)
    voxels = np.random.default_rng(0).choice(v, min(SAMPLE, v), replace=False)
    with limited_threads(backend):
        fit = 0.0
        if analysis.imputations > 1:
            search = search_of(analysis.design.X, settings.search)
            fit = seconds(
                lambda: search.on(backend.name)(
                    analysis.bounds.lower[:, voxels],
                    analysis.bounds.upper[:, voxels],
                    analysis.terms.c,
                    analysis.terms.v2,
                    analysis.design.X,
                    analysis.design.criterion,
                    analysis.discards,
                )
            )
        fit *= v / len(voxels)
        draws = analysis.imputations * len(analysis.terms.j) * v * NS_PER_IMPUTATION
        draws *= 1e-9 / backend.threads
        if analysis.refits:
            # Each permutation fits, draws, and pools, which takes about as long as to draw; or it
            # scores the bounds.
            again = fit + 2 * draws
            if settings.test == "score":
                again = len(analysis.terms.j) * v * NS_PER_SCORE * 1e-9 / backend.threads
            paths = 0.0
            if settings.exchange == "peaks":
                peaks = sum(len(s.peaks) for s in analysis.design.dataset.studies)
                paths = peaks * v * NS_PER_PEAK_VOXEL * 1e-9 / backend.threads
            speed = 1 / (again + paths)
        else:
            speed = rate(workload, settings.statistic, backend)
    images = workload.subjects * v * NS_PER_SUBJECT_VOXEL * 1e-9 / backend.threads
    layout = plan_layout(analysis, budget)
    free = memory_bytes() if budget is None else budget
    return Forecast(layout.memory, layout.disk, free, fit + draws + images, speed)
