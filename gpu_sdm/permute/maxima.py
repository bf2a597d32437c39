"""The largest value of each statistic in z maps, and how far a device may be from it."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from gpu_sdm.backend import Backend
from gpu_sdm.errors import NumericalError
from gpu_sdm.ops.max_cluster import MAX_CLUSTER, box_neighbours
from gpu_sdm.ops.max_tfce import MAX_TFCE, max_statistic
from gpu_sdm.permute.null import NullState, refuse_nan
from gpu_sdm.spaces import Space

if TYPE_CHECKING:
    from gpu_sdm.permute.engine import Problem

# Stated error of a backend's permuted z against the float64 twin (tests hold it); maxima closer
# to an observed value than this count as ties. TFCE: relative, from the thresholds it moves.
# A cluster statistic may be as small as that of the voxels that stay above the forming threshold
# raised by the error of z, and as large as with the threshold lowered by it.
TIE_TOLERANCE = {"voxel": 1e-4, "tfce": 1e-3}
CLUSTERS = {"cluster-extent": 0, "cluster-mass": 1}  # place in what MAX_CLUSTER gives


@dataclass(frozen=True, slots=True, eq=False)
class Forming:
    """What makes clusters of voxels: z strictly above `threshold`, joined along `neighbours`.

    Parameters
    ----------
    threshold : float
        Forming threshold.
    neighbours : (V, 26) int32
        By faces, edges and corners, as `box_neighbours` gives them: a cluster that is tested is
        one that the tables list.
    """

    threshold: float
    neighbours: np.ndarray

    @classmethod
    def of(cls, threshold: float | None, space: Space) -> Forming | None:
        """Clusters of a mask; None without a threshold."""
        return None if threshold is None else cls(threshold, box_neighbours(space))


def maxima_of(
    z: np.ndarray,
    statistics: tuple[str, ...],
    problem: Problem,
    backend: Backend,
    pool: ThreadPoolExecutor,
    first: int = 0,
) -> dict[str, np.ndarray]:
    """Largest value of each statistic in each map: statistic -> (2, P), positive side first.

    Raises
    ------
    NumericalError
        If a map holds NaN; names the permutation (`first` is that of the first map) and voxel.
    """
    parts = pool.map(max_statistic, np.array_split(z, min(backend.threads, len(z))))
    highest, lowest = (np.concatenate(side) for side in zip(*parts, strict=True))
    if np.isnan(highest).any():
        row = int(np.flatnonzero(np.isnan(highest))[0])
        refuse_nan(z[row], problem.space, first + row)
    found = {}
    if "voxel" in statistics:
        found["voxel"] = np.stack([highest, lowest])
    if "tfce" in statistics:
        compute = MAX_TFCE.on(backend.name)
        sides = [(p, sign) for sign in (1.0, -1.0) for p in range(len(z))]
        values = pool.map(
            lambda side: compute(z[side[0] : side[0] + 1], problem.neighbours, side[1])[0], sides
        )
        found["tfce"] = np.array(list(values)).reshape(2, len(z))
    if any(s in statistics for s in CLUSTERS):
        assert problem.forming is not None
        both = largest_clusters(z, problem.forming, backend, pool)
        found |= {s: both[i] for s, i in CLUSTERS.items() if s in statistics}
    return found


def largest_clusters(
    z: np.ndarray, forming: Forming, backend: Backend, pool: ThreadPoolExecutor
) -> np.ndarray:
    """Largest extent and mass of the clusters of z (P, V): (2, 2, P), positive side first."""
    compute = MAX_CLUSTER.on(backend.name)
    sides = [(p, sign) for sign in (1.0, -1.0) for p in range(len(z))]
    found = pool.map(
        lambda side: np.ravel(
            compute(z[side[0] : side[0] + 1], forming.neighbours, forming.threshold, side[1])
        ),
        sides,
    )
    return np.array(list(found)).T.reshape(2, 2, len(z))


def _identity_range(
    statistic: str, observed: np.ndarray, problem: Problem, backend: Backend
) -> tuple[np.ndarray, np.ndarray]:
    """Smallest and largest values (2,) that a device may give for the observed maxima (2,)."""
    if statistic not in CLUSTERS:
        error = TIE_TOLERANCE[statistic] * (1.0 if statistic == "voxel" else np.abs(observed))
        return observed - error, observed + error
    assert problem.forming is not None
    raised, lowered = (
        replace(
            problem.forming, threshold=problem.forming.threshold + sign * TIE_TOLERANCE["voxel"]
        )
        for sign in (1, -1)
    )
    with ThreadPoolExecutor(1) as pool:
        low, high = (
            largest_clusters(problem.observed_z[None], forming, backend, pool)
            for forming in (raised, lowered)
        )
    i = CLUSTERS[statistic]
    return low[i, :, 0] * (1 - 1e-6), high[i, :, 0] * (1 + 1e-6)


def require_identity(
    identity: dict[str, np.ndarray], state: NullState, problem: Problem, backend: Backend
) -> None:
    """Hold a device's permutation 0 against the observed maxima, which the CPU computed.

    Raises
    ------
    NumericalError
        If they differ by more than the device's stated error: the card, its driver or the
        compiled kernels cannot be trusted.
    """
    device = backend.name if backend.device is None else backend.device.name
    for statistic, found in identity.items():
        ours, wanted = found[:, 0], state.maxima[statistic][:, 0]
        low, high = _identity_range(statistic, wanted.astype(np.float64), problem, backend)
        if not ((ours >= low) & (ours <= high)).all():
            raise NumericalError(
                f"{device} gives {ours.tolist()} as the observed maxima of "
                f"{statistic} where the CPU gives {wanted.tolist()}; use --backend cpu and "
                "please report this."
            )
