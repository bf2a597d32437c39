"""What the comparisons with other programs share: the same maps, fair clocks, one kind of row."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter
from threadpoolctl import threadpool_limits

from gpu_sdm.analysis import limited_threads
from gpu_sdm.backend import available_cores, get_backend
from gpu_sdm.config import Settings
from gpu_sdm.data import StudyTerms
from gpu_sdm.io.volumes import load_space
from gpu_sdm.permute.engine import Problem, permute
from gpu_sdm.permute.null import NullState
from gpu_sdm.spaces import Space

STUDIES = 20
SMOOTH_MM = 6.0  # SD of the smoothing of the maps
PLANTED = ((-44.0, 18.0, 4.0), (40.0, -56.0, 44.0))  # MNI mm
LITTLE = 1e-3  # variance of every study where random effects are to equal least squares


class Absent(Exception):
    """A peer is not installed: says which and how to get it."""


def require(module: str, wheel: str) -> str:
    """Import a peer and give its version.

    Raises
    ------
    Absent
        If it is not installed, or what it depends on is not.
    """
    if importlib.util.find_spec(module.partition(".")[0]) is None:
        raise Absent(f"{wheel} is not installed (pip install {wheel})")
    try:
        importlib.import_module(module)
    except ImportError as missing:
        raise Absent(f"{wheel} cannot be imported: {missing} (pip install {wheel})") from missing
    return importlib.metadata.version(wheel)


@dataclass(frozen=True)
class Timed:
    """Wall and processor seconds (user and system, all threads) of the best of some calls."""

    wall: float
    cpu: float
    value: Any

    def per(self, n: int) -> dict[str, float]:
        """Seconds of one of n pieces of the work."""
        return {"wall_s": self.wall / n, "cpu_s": self.cpu / n}


def timed(work: Callable[[], Any], repeats: int = 3) -> Timed:
    """Time a call; the least disturbed of several."""
    best = None
    for _ in range(repeats):
        wall, cpu = time.perf_counter(), time.process_time()
        value = work()
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        if best is None or cpu < best.cpu:
            best = Timed(min(wall, best.wall if best else wall), cpu, value)
        else:
            best = replace(best, wall=min(wall, best.wall))
    assert best is not None
    return best


def limits(threads: int) -> Any:
    """Limit BLAS of a peer."""
    return threadpool_limits(threads, user_api="blas")


def space_of(voxel_size: int, voxels: int | None = None) -> Space:
    """Give the mask of an analysis, or only its first voxels in scan order."""
    space = load_space(Settings(voxel_size=voxel_size))
    if voxels is None or voxels >= space.n_voxels:
        return space
    mask = np.zeros(space.mask.size, bool)
    mask[space.index[:voxels]] = True
    return Space(voxel_size, mask.reshape(space.shape, order="F"))


@lru_cache(maxsize=4)
def effects_of(space: Space, imputations: int, studies: int = STUDIES) -> np.ndarray:
    """Make (M, K, V) float32 effects: smooth noise, two true foci; imputations differ a little."""
    rng = np.random.default_rng(8)
    width = SMOOTH_MM / space.voxel_size
    mm = space.mm()
    truth = sum(np.exp(-((mm - np.asarray(at)) ** 2).sum(axis=1) / (2 * 12.0**2)) for at in PLANTED)

    def noise(n: int) -> np.ndarray:
        fields = np.empty((n, space.n_voxels), np.float32)
        for row in fields:
            row[:] = space.extract(
                gaussian_filter(rng.standard_normal(space.shape, np.float32), width)
            )
        return fields / fields.std(axis=1, keepdims=True)

    shared = 0.25 * noise(studies) + np.float32(0.5) * truth.astype(np.float32)
    own = noise(17) if imputations > 1 else np.zeros((17, 1), np.float32)
    found = np.empty((imputations, studies, space.n_voxels), np.float32)
    for m, one in enumerate(found):
        one[:] = shared + np.float32(0.05) * own[(m * studies + np.arange(studies)) % 17]
    found.flags.writeable = False
    return found


def study_sizes(studies: int = STUDIES) -> StudyTerms:
    """Constants of one-sample studies of 16 to 40 subjects, variance (1 + g^2 / 2) / n."""
    n = np.linspace(16, 40, studies).round()
    zero = np.zeros(studies)
    return StudyTerms(j=np.ones(studies), c=1 / n, v2=0.5 / n, n1=n, n2=zero)


def equal_terms(studies: int = STUDIES) -> StudyTerms:
    """One small variance for all: DerSimonian and Laird's z is then the one-sample t exactly.

    With v equal, tau2 + v is the sample variance wherever that is above v.
    """
    n = np.full(studies, 25.0)
    zero = np.zeros(studies)
    return StudyTerms(j=np.ones(studies), c=zero + LITTLE, v2=zero, n1=n, n2=zero)


@dataclass(frozen=True, eq=False)
class GivenSigns:
    """A plan of whole studies that replays the sign flips (P, K) of another program."""

    signs: np.ndarray

    @property
    def n_studies(self) -> int:
        """K."""
        return self.signs.shape[1]

    def weights(self, k: int, permutations: np.ndarray) -> tuple[None, np.ndarray]:
        """Sign of study k; +1 past the last permutation."""
        found = np.ones(len(permutations), np.float32)
        known = np.asarray(permutations) < len(self.signs)
        found[known] = self.signs[np.asarray(permutations)[known], k]
        return None, found


def problem_of(
    space: Space, effects: np.ndarray, terms: StudyTerms, observed_z: np.ndarray
) -> Problem:
    """Give the engine whole studies whose signs flip."""
    k = effects.shape[1]
    return Problem(
        effects=effects, bank=None, terms=terms, design=np.ones((k, 1)), contrast=np.ones(1),
        tau2="dl", rescale_sd=True, space=space, neighbours=space.neighbours(),
        observed_z=observed_z,
    )  # fmt: skip


def both_threads() -> list[int]:
    """One thread, and all cores."""
    return sorted({1, available_cores()})


def our_null(
    problem: Problem,
    signs: np.ndarray,
    statistics: tuple[str, ...],
    repeats: int,
    imputations: int = 1,
    warm_up: int = 32,
) -> tuple[dict[str, dict[str, float]], NullState]:
    """Time our permutations as an analysis does, with the compiled CPU path.

    `signs` begin with those of the data as it is; the first `warm_up` of them run once before the
    clock. Gives threads -> seconds of one map of one imputation, and the null.
    """

    def null(some: np.ndarray) -> NullState:
        return permute(problem, GivenSigns(some), len(some), statistics, backend)

    seconds = {}
    for threads in both_threads():
        backend = get_backend("cpu", threads)
        with limited_threads(backend):
            null(signs[:warm_up])
            found = timed(lambda: null(signs), repeats)
        seconds[str(threads)] = found.per(len(signs) * imputations)
    return seconds, found.value


def agreement(what: str, value: float, bar: float | None, at_least: bool = False) -> dict[str, Any]:
    """Tell how far the results are from each other, and whether that is close enough."""
    value = float(value)
    met = None if bar is None else bool(value >= bar if at_least else value <= bar)
    return {"what": what, "value": value, "bar": bar, "at_least": at_least, "met": met}


def row(
    what: str,
    peer: str,
    sizes: dict[str, int],
    theirs: dict[str, dict[str, float]],
    ours: dict[str, dict[str, float]],
    agreements: list[dict[str, Any]],
    bar: float | None = None,
    note: str = "",
    same: bool = True,
) -> dict[str, Any]:
    """Put ratio and agreement together: no ratio where the results differ.

    Parameters
    ----------
    what, peer : str
        The work; the other program and its version.
    sizes : dict
        Voxels, studies, permutations.
    theirs, ours : dict of str to dict
        Threads ("1", "2") to the seconds of one map, wall_s and cpu_s.
    agreements : list
        From `agreement`.
    bar : float, optional
        Least ratio that the issue asks for.
    note : str
        What the reader has to know.
    same : bool
        Whether both do the same work; there is no ratio otherwise.

    Notes
    -----
    `ratio` compares what each needs at its best on this machine, `ratio_core` one core with one
    core in processor seconds, which other work on the machine disturbs less.
    """
    agrees = all(a["met"] is not False for a in agreements)
    ratio = min(t["wall_s"] for t in theirs.values()) / min(t["wall_s"] for t in ours.values())
    core = theirs["1"]["cpu_s"] / ours["1"]["cpu_s"]
    return {
        "what": what, "peer": peer, **sizes, "theirs": theirs, "ours": ours,
        "agreement": agreements, "agrees": agrees,
        "same": same, "ratio": ratio if agrees and same else None,
        "ratio_core": core if agrees and same else None,
        "bar": bar, "met": None if bar is None else bool(agrees and ratio >= bar), "note": note,
    }  # fmt: skip


def load() -> list[float]:
    """Load of the machine, 1 and 5 minutes."""
    return [round(x, 2) for x in os.getloadavg()[:2]]
