"""How the likelihood is cut on a device: pure functions of sizes, free memory and processors.

None of it changes a bit: a voxel's numbers depend on its bounds alone.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpu_sdm.errors import OutOfMemory

BLOCK = 128  # threads of a block, one voxel each
MOST_TERMS = 8  # coefficients that the kernels are compiled for
MAX_DOUBLINGS = 60  # points that may follow the grid of tau2
PER_PROCESSOR = 512  # voxels at once on one multiprocessor
LEAST_VOXELS = 32
USABLE = 0.9  # of the free memory
# A multiprocessor of a small card does two float64 operations a cycle; one study at one mean takes
# about 200: 15 million a second. So many in one launch keep it under 0.5 s where it drives a
# display.
EVALUATIONS = 6_000_000


@dataclass(frozen=True, slots=True)
class FitPlan:
    """How much is done at once.

    Parameters
    ----------
    voxels : int
        Voxels on the device at once, one thread each.
    passes : int
        Sums over all studies after which a thread of a launch stops, to go on in the next.
    points : int
        Points of the grid of tau2 in one launch.
    needed : int
        Bytes on the device.
    """

    voxels: int
    passes: int
    points: int
    needed: int


def words(n_studies: int) -> int:
    """32-bit words that hold a bit for each study."""
    return -(-n_studies // 32)


def bytes_per_voxel(n_studies: int, n_terms: int, n_grid: int) -> int:
    """Bytes of bounds, state, scratch and results of a voxel."""
    doubles = n_studies * (n_terms + 3) + n_terms + n_grid + MAX_DOUBLINGS + 3
    return 8 * n_studies + 8 * doubles + 4 * (3 * words(n_studies) + 5)


def plan_fit(
    n_studies: int, n_terms: int, n_grid: int, n_voxels: int, free: int, processors: int
) -> FitPlan:
    """Fit the likelihood into the free memory of a device.

    Parameters
    ----------
    n_studies, n_terms : int
        K and Q.
    n_grid : int
        Points of the grid of tau2.
    n_voxels : int
        V.
    free : int
        Free bytes, or what --device-memory allows.
    processors : int
        Multiprocessors of the device.

    Raises
    ------
    OutOfMemory
        If not even 32 voxels fit.
    """
    shared = 8 * (n_studies * (n_terms + 2) + n_terms + n_grid)
    each = bytes_per_voxel(n_studies, n_terms, n_grid)
    room = (int(USABLE * free) - shared) // each
    voxels = min(n_voxels, PER_PROCESSOR * processors, room)
    if voxels < min(n_voxels, LEAST_VOXELS):
        least = (shared + LEAST_VOXELS * each) / USABLE
        raise OutOfMemory(
            f"the likelihood of {n_studies} studies needs at least {least / 1e6:.1f} MB on the "
            f"device and {free / 1e6:.1f} MB are free."
        )
    if voxels < n_voxels:
        voxels -= voxels % LEAST_VOXELS
    return FitPlan(
        voxels=voxels,
        passes=max(1, EVALUATIONS // (PER_PROCESSOR * n_studies)),
        points=max(1, EVALUATIONS * processors // (voxels * n_studies)),
        needed=shared + voxels * each,
    )
