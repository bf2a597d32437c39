"""Memory and time of an analysis before it is run, from small pieces of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from gpu_sdm.analysis import Analysis, limited_threads
from gpu_sdm.environment import memory_bytes
from gpu_sdm.errors import OutOfMemory
from gpu_sdm.ops.fit_bounds import FIT_BOUNDS
from gpu_sdm.permute.plan import TILE
from gpu_sdm.workload import Workload, rate, seconds

# Measured on 2 cores of a server processor (bench/permute.py): nanoseconds per drawn value.
NS_PER_IMPUTATION = 60.0
NS_PER_SUBJECT_VOXEL = 45.0
NS_PER_PEAK_VOXEL = 33.0  # shortest paths
# Python, libraries, template and compiled code, before any study is held.
BASE_BYTES = 900_000_000
SAMPLE = 2000  # voxels on which the likelihood is timed


@dataclass(frozen=True, slots=True)
class Forecast:
    """What a run will need.

    Parameters
    ----------
    memory : int
        Bytes at the peak.
    free : int or None
        Bytes that can be had now; None where the system does not tell.
    preparation : float
        Seconds before the first permutation.
    rate : float
        Permutations per second.
    """

    memory: int
    free: int | None
    preparation: float
    rate: float


def memory_needed(analysis: Analysis) -> int:
    """Bytes at the peak: imputations, subject images, bounds, a tile of maps and their copies."""
    settings, v = analysis.settings, analysis.space.n_voxels
    k = len(analysis.terms.j)
    subjects = int(analysis.terms.n1.sum() + analysis.terms.n2.sum())
    if settings.exchange != "subjects" or analysis.design.moderator:
        subjects = 0
    effects = 4 * analysis.imputations * k * v
    held = effects + 4 * subjects * v + 8 * k * v
    # Building a group's images takes a second copy of it; pooling takes blocks only.
    largest = int(max(analysis.terms.n1.max(), analysis.terms.n2.max()))
    working = 4 * v * (2 * TILE + 30) + 8 * largest * v * analysis.backend.threads
    return BASE_BYTES + held + working


def check_memory(analysis: Analysis) -> None:
    """Raise before the long work where it cannot fit.

    Raises
    ------
    OutOfMemory
        With what it needs, what there is and what would make it smaller.
    """
    needed, free = memory_needed(analysis), memory_bytes()
    if free is not None and needed > free:
        raise OutOfMemory(
            f"this analysis needs {needed / 1e9:.1f} GB of memory and {free / 1e9:.1f} GB are "
            "free; use fewer --imputations, a larger --voxel-size, a smaller --mask, or another "
            "machine."
        )


def forecast(analysis: Analysis) -> Forecast:
    """Measure the speed of the permutations, and a sample of the likelihood, and scale up."""
    settings, backend, v = analysis.settings, analysis.backend, analysis.space.n_voxels
    workload = Workload.of(analysis)
    voxels = np.random.default_rng(0).choice(v, min(SAMPLE, v), replace=False)
    with limited_threads(backend):
        fit = 0.0
        if analysis.imputations > 1:
            fit = seconds(
                lambda: FIT_BOUNDS.on(backend.name)(
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
            # Each permutation fits, draws, and pools, which takes about as long as to draw.
            paths = 0.0
            if settings.exchange == "peaks":
                peaks = sum(len(s.peaks) for s in analysis.design.dataset.studies)
                paths = peaks * v * NS_PER_PEAK_VOXEL * 1e-9 / backend.threads
            speed = 1 / (fit + 2 * draws + paths)
        else:
            speed = rate(workload, settings.statistic, backend)
    images = workload.subjects * v * NS_PER_SUBJECT_VOXEL * 1e-9 / backend.threads
    return Forecast(memory_needed(analysis), memory_bytes(), fit + draws + images, speed)
